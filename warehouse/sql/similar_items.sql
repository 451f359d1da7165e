-- the k items nearest to one in the language space of the default encoder
CREATE OR REPLACE MACRO similar_items(id, k := 10) AS TABLE
WITH anchor AS (
  SELECT anchored.embedding FROM embeddings AS anchored WHERE anchored.kind = 'item' AND anchored.entity_id = id::VARCHAR
)
SELECT
  near.entity_id AS item_id,
  named.title,
  array_cosine_similarity(near.embedding, anchor.embedding) AS similarity
FROM embeddings AS near
CROSS JOIN anchor
LEFT JOIN items AS named ON named.item_id = near.entity_id
WHERE near.kind = 'item' AND near.entity_id <> id::VARCHAR
ORDER BY similarity DESC, item_id
LIMIT k;
