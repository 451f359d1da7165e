-- of how many items and users something is said, by whom, and how many have a vector of the default encoder
CREATE OR REPLACE MACRO coverage() AS TABLE
WITH entities AS (
  SELECT 'item' AS kind, item_id AS entity_id FROM items
  UNION
  SELECT 'user', user_id FROM users
  UNION
  SELECT 'user', user_id FROM interactions
),
aside AS (
  SELECT DISTINCT kind, entity_id FROM quarantine WHERE stage = 'profile'
)
SELECT
  entities.kind,
  count(*) AS entities,
  count(told.profile) AS with_profile,
  count(*) FILTER (WHERE told.source = 'pooled') AS pooled,
  count(aside.entity_id) AS set_aside,
  count(placed.entity_id) AS with_vector,
  count(placed.entity_id) / count(*) AS share_with_vector
FROM entities
LEFT JOIN profiles AS told ON told.kind = entities.kind AND told.entity_id = entities.entity_id
LEFT JOIN aside ON aside.kind = entities.kind AND aside.entity_id = entities.entity_id
LEFT JOIN embeddings AS placed ON placed.kind = entities.kind AND placed.entity_id = entities.entity_id
GROUP BY entities.kind
ORDER BY entities.kind;
