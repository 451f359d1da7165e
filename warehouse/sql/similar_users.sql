-- the k users nearest to one in the language space of the default encoder
CREATE OR REPLACE MACRO similar_users(id, k := 10) AS TABLE
WITH anchor AS (
  SELECT anchored.embedding FROM embeddings AS anchored WHERE anchored.kind = 'user' AND anchored.entity_id = id::VARCHAR
)
SELECT
  near.entity_id AS user_id,
  array_cosine_similarity(near.embedding, anchor.embedding) AS similarity
FROM embeddings AS near
CROSS JOIN anchor
WHERE near.kind = 'user' AND near.entity_id <> id::VARCHAR
ORDER BY similarity DESC, user_id
LIMIT k;
