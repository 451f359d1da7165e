-- warning: one text is the profile of more than 1 % of the items, and of ten at least
SELECT 'item' AS kind, min(entity_id) AS entity_id, count(*) || ' items: ' || left(profile, 80) AS detail
FROM profiles
WHERE kind = 'item' AND profile IS NOT NULL
GROUP BY profile
HAVING count(*) >= greatest(10, 0.01 * (SELECT count(*) FROM profiles WHERE kind = 'item'))
