-- error: a recommendation of an item the user has met in training
SELECT 'user' AS kind, given.user_id AS entity_id, given.item_id AS detail
FROM recommendations AS given
JOIN splits AS met ON met.user_id = given.user_id AND met.item_id = given.item_id AND met.part IN ('train', 'fold_in')
