-- what changed against the version before: mean length of item profiles, mean length of vectors, and how many of the ten
-- nearest items of up to 200 items stayed; same_recipe is false where model, prompt or encoder changed too. No rows
-- where there is no version before
CREATE OR REPLACE MACRO drift() AS TABLE
WITH texts AS (
  SELECT versions.*, dense_rank() OVER (ORDER BY versions.counter DESC) AS age
  FROM profile_versions AS versions
  WHERE versions.kind = 'item' AND versions.profile IS NOT NULL
),
places AS (
  SELECT versions.*, dense_rank() OVER (ORDER BY versions.counter DESC) AS age
  FROM embedding_versions AS versions
  WHERE versions.kind = 'item'
),
recipes AS (
  SELECT count(DISTINCT recipe) = 1 AS same_recipe
  FROM (
    SELECT texts.age, list(DISTINCT (texts.source, texts.model, texts.prompt_id, texts.prompt_version)).list_sort() AS recipe
    FROM texts
    WHERE texts.age <= 2
    GROUP BY texts.age
  )
),
sampled AS (
  SELECT placed.entity_id
  FROM places AS placed
  WHERE placed.age <= 2
  GROUP BY placed.entity_id
  HAVING count(*) = 2
  ORDER BY sha256(placed.entity_id)
  LIMIT 200
),
near AS (
  SELECT
    anchor.age,
    anchor.entity_id,
    max_by(other.entity_id, (array_cosine_similarity(anchor.embedding, other.embedding), other.entity_id), 10) AS nearest
  FROM places AS anchor
  SEMI JOIN sampled ON sampled.entity_id = anchor.entity_id
  JOIN places AS other ON other.age = anchor.age AND other.entity_id <> anchor.entity_id
  WHERE anchor.age <= 2
  GROUP BY anchor.age, anchor.entity_id
),
kept AS (
  SELECT avg(len(list_intersect(then_near.nearest, now_near.nearest)) / len(now_near.nearest)) AS share
  FROM near AS now_near
  JOIN near AS then_near ON then_near.entity_id = now_near.entity_id AND then_near.age = 2
  WHERE now_near.age = 1
),
measured AS (
  SELECT
    'profile length' AS measure,
    avg(length(texts.profile)) FILTER (WHERE texts.age = 2) AS before,
    avg(length(texts.profile)) FILTER (WHERE texts.age = 1) AS now
  FROM texts
  UNION ALL
  SELECT
    'vector norm',
    avg(sqrt(list_dot_product(places.embedding, places.embedding))) FILTER (WHERE places.age = 2),
    avg(sqrt(list_dot_product(places.embedding, places.embedding))) FILTER (WHERE places.age = 1)
  FROM places
  UNION ALL
  SELECT 'neighbours kept', 1.0, kept.share FROM kept
)
SELECT measured.measure, measured.before, measured.now, measured.now / measured.before - 1 AS change, recipes.same_recipe
FROM measured
CROSS JOIN recipes
WHERE measured.before IS NOT NULL AND measured.now IS NOT NULL
ORDER BY measured.measure;
