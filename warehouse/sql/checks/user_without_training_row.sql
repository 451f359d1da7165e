-- warning: a user of the validation or test part of whom nothing is known
SELECT DISTINCT 'user' AS kind, parted.user_id AS entity_id, 'no training or fold-in row' AS detail
FROM splits AS parted
WHERE parted.part <> 'train' AND NOT parted.user_id IN (SELECT user_id FROM splits WHERE part IN ('train', 'fold_in'))
