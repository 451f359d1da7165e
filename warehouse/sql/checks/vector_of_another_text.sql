-- error: a vector made from a text that is not the profile of today
SELECT placed.kind, placed.entity_id, left(placed.text_hash, 12) AS detail
FROM embeddings AS placed
JOIN profiles AS told ON told.kind = placed.kind AND told.entity_id = placed.entity_id
WHERE told.profile IS NOT NULL
  AND placed.text_hash <> sha256(told.profile)
  -- made of other texts too, which are not in this table, or read from a file
  AND NOT starts_with(placed.text_hash, 'texts:')
  AND NOT starts_with(placed.text_hash, 'file:')
