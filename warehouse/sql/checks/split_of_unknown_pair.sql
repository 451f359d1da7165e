-- error: a split row of a pair that is no interaction
SELECT 'user' AS kind, parted.user_id AS entity_id, parted.item_id || ' in ' || parted.part AS detail
FROM splits AS parted
ANTI JOIN interactions AS met ON met.user_id = parted.user_id AND met.item_id = parted.item_id
