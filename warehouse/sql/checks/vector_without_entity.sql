-- error: a vector of an item or user that has no profile row
SELECT placed.kind, placed.entity_id, left(placed.text_hash, 12) AS detail
FROM embeddings AS placed
ANTI JOIN profiles AS told ON told.kind = placed.kind AND told.entity_id = placed.entity_id
-- a vector that was read from a file was joined with items and users, who need no profile
WHERE NOT starts_with(placed.text_hash, 'file:')
