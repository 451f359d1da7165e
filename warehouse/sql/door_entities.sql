-- one row per refused item or user: its place and the reason
SELECT row, CASE WHEN id IS NULL OR trim(id) = '' THEN 'null_id' ELSE 'duplicate_id' END AS code
FROM arriving
QUALIFY id IS NULL OR trim(id) = '' OR row_number() OVER (PARTITION BY id ORDER BY row) > 1
ORDER BY row
