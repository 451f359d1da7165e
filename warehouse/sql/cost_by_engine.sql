-- what was asked of language models: by day, engine and model, as the runs counted it; usd is null while any price in
-- it is unknown. Calls of no finished run (previews, pilots, runs that were stopped) have no engine, and no run that
-- could have counted what was cached, asked again or put aside. Calls that bought vectors are counted one by one.
CREATE OR REPLACE MACRO cost_by_engine() AS TABLE
WITH counted AS (
  SELECT
    CAST(started_at AT TIME ZONE 'UTC' AS DATE) AS day, engine, model, calls, replies, cached, reasked, quarantined,
    tokens_in, tokens_out, usd
  FROM runs
  WHERE calls + cached > 0
  UNION ALL
  SELECT
    CAST(started_at AT TIME ZONE 'UTC' AS DATE), NULL, model, 1, CAST(state = 'ok' AS INTEGER), NULL, NULL, NULL,
    tokens_in, tokens_out, usd
  FROM llm_calls
  WHERE kind IS DISTINCT FROM 'texts' AND NOT EXISTS (
    FROM runs
    WHERE runs.calls IS NOT NULL
      AND llm_calls.started_at BETWEEN runs.started_at AND runs.started_at + to_milliseconds(1000 * runs.seconds)
  )
  UNION ALL
  SELECT
    CAST(started_at AT TIME ZONE 'UTC' AS DATE), 'openai-embeddings', model, 1, CAST(state = 'ok' AS INTEGER), NULL,
    NULL, NULL, tokens_in, tokens_out,
    -- an answer that is an error is free, and so is a server whose worst case is
    CASE WHEN usd IS NULL AND (worst_usd = 0 OR status NOT BETWEEN 200 AND 299) THEN 0.0 ELSE usd END
  FROM llm_calls
  WHERE kind = 'texts'
)
SELECT
  day,
  engine,
  model,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(replies) AS BIGINT) AS replies,
  CAST(sum(cached) AS BIGINT) AS cached,
  CAST(sum(tokens_in) AS BIGINT) AS tokens_in,
  CAST(sum(tokens_out) AS BIGINT) AS tokens_out,
  CASE WHEN count(usd) = count(*) THEN sum(usd) END AS usd,
  CAST(sum(reasked) AS BIGINT) AS reasked,
  CAST(sum(quarantined) AS BIGINT) AS quarantined
FROM counted
GROUP BY day, engine, model
ORDER BY day, engine NULLS LAST, model;
