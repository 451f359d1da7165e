-- error: a profile of an item or user that is not in the catalogue
SELECT told.kind, told.entity_id, told.source AS detail
FROM profiles AS told
WHERE
  (told.kind = 'item' AND NOT told.entity_id IN (SELECT item_id FROM items))
  OR (
    told.kind = 'user'
    AND NOT told.entity_id IN (SELECT user_id FROM users)
    AND NOT told.entity_id IN (SELECT user_id FROM interactions)
  )
