-- what the language models took, day by day; usd adds up the known prices only, unpriced counts the calls without one;
-- maybe_paid are calls without a certain outcome, and what they can have cost at most
CREATE OR REPLACE MACRO cost_by_day() AS TABLE
SELECT
  CAST(started_at AT TIME ZONE 'UTC' AS DATE) AS day,
  model,
  count(*) AS calls,
  count(*) FILTER (WHERE state = 'ok') AS answered,
  CAST(sum(tokens_in) AS BIGINT) AS tokens_in,
  CAST(sum(tokens_out) AS BIGINT) AS tokens_out,
  sum(usd) AS usd,
  count(*) FILTER (WHERE usd IS NULL) AS unpriced,
  count(*) FILTER (WHERE state = 'sent') AS maybe_paid,
  sum(worst_usd) FILTER (WHERE state = 'sent') AS maybe_paid_usd
FROM llm_calls
GROUP BY ALL
ORDER BY day, model;
