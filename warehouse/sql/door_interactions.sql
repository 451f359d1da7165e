-- one row per refused interaction: its place and the first reason that holds
WITH typed AS (
  SELECT
    row,
    user_id,
    item_id,
    rating AS written_rating,
    timestamp AS written_timestamp,
    {rating} AS rating,
    {timestamp} AS timestamp
  FROM arriving
),
judged AS (
  SELECT
    row,
    user_id,
    item_id,
    timestamp,
    CASE
      WHEN user_id IS NULL OR item_id IS NULL OR trim(user_id) = '' OR trim(item_id) = '' THEN 'null_id'
      WHEN NOT item_id IN (SELECT item_id FROM known_items) THEN 'unknown_item'
      WHEN {user_is_unknown} THEN 'unknown_user'
      WHEN written_rating IS NOT NULL AND (rating IS NULL OR NOT isfinite(rating)) THEN 'bad_rating'
      WHEN written_timestamp IS NOT NULL AND timestamp IS NULL THEN 'bad_time'
      WHEN timestamp < $earliest OR timestamp > $latest THEN 'absurd_time'
    END AS code
  FROM typed
)
SELECT row, coalesce(code, 'duplicate_pair') AS code
FROM judged
QUALIFY code IS NOT NULL OR row_number() OVER (
  -- a row that `before` leaves out stands for no row that it keeps
  PARTITION BY user_id, item_id, code IS NULL, coalesce(timestamp < $before, $before IS NULL)
  ORDER BY {first}
) > 1
ORDER BY row
