-- error: a vector without direction: all zero, or with a number that is not finite
SELECT
  kind,
  entity_id,
  'length ' || coalesce(round(sqrt(list_dot_product(embedding, embedding)), 4)::VARCHAR, 'unknown') AS detail
FROM embeddings
WHERE NOT coalesce(isfinite(list_dot_product(embedding, embedding)) AND list_dot_product(embedding, embedding) > 0, false)
