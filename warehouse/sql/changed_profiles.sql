-- the items whose profile is not the one of `since`, and what that did to their neighbours: how far the vector moved,
-- how many of the k nearest items stayed, which left and which came
CREATE OR REPLACE MACRO changed_profiles(since, k := 10) AS TABLE
WITH old_profiles AS (
  SELECT versions.entity_id, versions.profile
  FROM profile_versions AS versions
  WHERE
    versions.kind = 'item'
    AND versions.counter = (
      SELECT coalesce(max(past.counter) FILTER (WHERE past.created_at <= since::TIMESTAMPTZ), min(past.counter))
      FROM profile_versions AS past
    )
),
old_vectors AS (
  SELECT versions.entity_id, versions.embedding
  FROM embedding_versions AS versions
  WHERE
    versions.kind = 'item'
    AND versions.counter = (
      SELECT coalesce(max(past.counter) FILTER (WHERE past.created_at <= since::TIMESTAMPTZ), min(past.counter))
      FROM embedding_versions AS past
    )
),
new_vectors AS (
  SELECT placed.entity_id, placed.embedding FROM embeddings AS placed WHERE placed.kind = 'item'
),
changed AS (
  SELECT told.entity_id, old_profiles.profile AS profile_before, told.profile AS profile_now
  FROM profiles AS told
  JOIN old_profiles ON old_profiles.entity_id = told.entity_id
  WHERE told.kind = 'item' AND told.profile IS DISTINCT FROM old_profiles.profile
),
spaces AS (
  SELECT 'before' AS age, old_vectors.* FROM old_vectors
  UNION ALL
  SELECT 'now', new_vectors.* FROM new_vectors
),
near AS (
  SELECT
    anchor.age,
    anchor.entity_id,
    unnest(
      max_by(other.entity_id, (array_cosine_similarity(anchor.embedding, other.embedding), other.entity_id), k)
    ) AS neighbour
  FROM spaces AS anchor
  SEMI JOIN changed ON changed.entity_id = anchor.entity_id
  JOIN spaces AS other ON other.age = anchor.age AND other.entity_id <> anchor.entity_id
  GROUP BY anchor.age, anchor.entity_id
),
near_before AS (
  SELECT near.entity_id, near.neighbour FROM near WHERE near.age = 'before'
),
near_now AS (
  SELECT near.entity_id, near.neighbour FROM near WHERE near.age = 'now'
),
neighbours AS (
  SELECT
    coalesce(near_now.entity_id, near_before.entity_id) AS entity_id,
    count(near_now.neighbour) FILTER (WHERE near_before.neighbour IS NOT NULL) AS stayed,
    list(near_before.neighbour ORDER BY near_before.neighbour) FILTER (WHERE near_now.neighbour IS NULL) AS gone,
    list(near_now.neighbour ORDER BY near_now.neighbour) FILTER (WHERE near_before.neighbour IS NULL) AS come
  FROM near_now
  FULL JOIN near_before
    ON near_before.entity_id = near_now.entity_id AND near_before.neighbour = near_now.neighbour
  GROUP BY ALL
)
SELECT
  changed.entity_id AS item_id,
  named.title,
  changed.profile_before,
  changed.profile_now,
  array_cosine_similarity(was.embedding, is_now.embedding) AS similarity_to_before,
  neighbours.stayed AS neighbours_stayed,
  coalesce(neighbours.gone, []) AS neighbours_gone,
  coalesce(neighbours.come, []) AS neighbours_come
FROM changed
LEFT JOIN items AS named ON named.item_id = changed.entity_id
LEFT JOIN old_vectors AS was ON was.entity_id = changed.entity_id
LEFT JOIN new_vectors AS is_now ON is_now.entity_id = changed.entity_id
LEFT JOIN neighbours ON neighbours.entity_id = changed.entity_id
ORDER BY similarity_to_before, item_id;
