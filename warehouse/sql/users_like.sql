-- the k users whose language vector is nearest to an item they have not met: whom to show it to
CREATE OR REPLACE MACRO users_like(id, k := 10) AS TABLE
WITH anchor AS (
  SELECT anchored.embedding FROM embeddings AS anchored WHERE anchored.kind = 'item' AND anchored.entity_id = id::VARCHAR
)
SELECT
  near.entity_id AS user_id,
  array_cosine_similarity(near.embedding, anchor.embedding) AS similarity
FROM embeddings AS near
CROSS JOIN anchor
WHERE
  near.kind = 'user'
  AND NOT near.entity_id IN (SELECT met.user_id FROM interactions AS met WHERE met.item_id = id::VARCHAR)
ORDER BY similarity DESC, user_id
LIMIT k;
