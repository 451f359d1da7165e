-- Replies that somebody accepted as they are.
CREATE TABLE decisions (
  kind VARCHAR NOT NULL,
  entity_id VARCHAR NOT NULL,
  request_key VARCHAR NOT NULL,
  code VARCHAR NOT NULL,
  profile VARCHAR NOT NULL,
  decided_at TIMESTAMPTZ NOT NULL,
  run_id VARCHAR
);
