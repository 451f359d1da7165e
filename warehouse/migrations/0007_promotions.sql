-- Which model serves, which one it was measured against, and why one was refused.
CREATE TABLE promotions (
  n BIGINT NOT NULL,
  decided_at TIMESTAMPTZ NOT NULL,
  run_id VARCHAR,
  verdict VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  model_ids VARCHAR[] NOT NULL,
  champion VARCHAR,
  champion_ids VARCHAR[] NOT NULL,
  snapshot VARCHAR NOT NULL,
  metric VARCHAR,
  value DOUBLE,
  champion_value DOUBLE,
  difference DOUBLE,
  low DOUBLE,
  high DOUBLE,
  n_users BIGINT,
  reasons VARCHAR[] NOT NULL,
  facts VARCHAR
);
