-- the optional columns of every interaction in their stored types; a review without a character is none
SELECT
  {rating} AS rating,
  {timestamp} AS timestamp,
  CASE WHEN trim(text::VARCHAR, e' \t\r\n') <> '' THEN text::VARCHAR END AS text
FROM arriving
ORDER BY row
