-- The tables of the first snapshots. A family's vectors have one width a member: FLOAT[] stands for FLOAT[d].
CREATE TABLE items (
  item_id VARCHAR NOT NULL,
  title VARCHAR,
  attributes VARCHAR NOT NULL
);
CREATE TABLE users (
  user_id VARCHAR NOT NULL,
  attributes VARCHAR NOT NULL
);
CREATE TABLE interactions (
  user_id VARCHAR NOT NULL,
  item_id VARCHAR NOT NULL,
  rating DOUBLE,
  timestamp TIMESTAMPTZ,
  text VARCHAR
);
CREATE TABLE splits (
  user_id VARCHAR NOT NULL,
  item_id VARCHAR NOT NULL,
  part VARCHAR NOT NULL
);
CREATE TABLE prompts (
  prompt_id VARCHAR NOT NULL,
  version INTEGER NOT NULL,
  fingerprint VARCHAR NOT NULL,
  text VARCHAR NOT NULL
);
CREATE TABLE profiles (
  kind VARCHAR NOT NULL,
  entity_id VARCHAR NOT NULL,
  profile VARCHAR,
  reasoning VARCHAR,
  source VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  prompt_version INTEGER NOT NULL,
  evidence_hash VARCHAR NOT NULL,
  evidence VARCHAR[] NOT NULL,
  request_key VARCHAR,
  snapshot VARCHAR
);
CREATE TABLE embeddings (
  kind VARCHAR NOT NULL,
  entity_id VARCHAR NOT NULL,
  text_hash VARCHAR NOT NULL,
  embedding FLOAT[] NOT NULL
);
CREATE TABLE recommendations (
  user_id VARCHAR NOT NULL,
  rank INTEGER NOT NULL,
  item_id VARCHAR NOT NULL,
  score DOUBLE,
  reason VARCHAR,
  model VARCHAR,
  snapshot VARCHAR,
  variant VARCHAR
);
CREATE TABLE metrics (
  run_id VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  seed BIGINT NOT NULL,
  protocol VARCHAR NOT NULL,
  part VARCHAR NOT NULL,
  metric VARCHAR NOT NULL,
  k INTEGER,
  value DOUBLE,
  low DOUBLE,
  high DOUBLE,
  label VARCHAR,
  model_id VARCHAR
);
CREATE TABLE metrics_per_user (
  run_id VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  model_id VARCHAR,
  user_id VARCHAR NOT NULL,
  metric VARCHAR NOT NULL,
  k INTEGER,
  value DOUBLE,
  part VARCHAR,
  seed BIGINT
);
CREATE TABLE model_registry (
  model_id VARCHAR NOT NULL,
  run_id VARCHAR NOT NULL,
  name VARCHAR NOT NULL,
  snapshot VARCHAR,
  state VARCHAR NOT NULL,
  created_at TIMESTAMPTZ NOT NULL,
  settings VARCHAR,
  metrics VARCHAR
);
CREATE TABLE runs (
  run_id VARCHAR NOT NULL,
  command VARCHAR NOT NULL,
  started_at TIMESTAMPTZ NOT NULL,
  seconds DOUBLE,
  settings VARCHAR NOT NULL,
  settings_hash VARCHAR NOT NULL,
  code_version VARCHAR,
  versions VARCHAR,
  exit_code INTEGER
);
CREATE TABLE llm_calls (
  request_key VARCHAR NOT NULL,
  attempt INTEGER NOT NULL,
  state VARCHAR NOT NULL,
  status INTEGER,
  model VARCHAR,
  tokens_in BIGINT,
  tokens_out BIGINT,
  usd DOUBLE,
  started_at TIMESTAMPTZ NOT NULL,
  latency_ms DOUBLE,
  kind VARCHAR,
  entity_id VARCHAR,
  error VARCHAR
);
CREATE TABLE quarantine (
  stage VARCHAR NOT NULL,
  kind VARCHAR NOT NULL,
  entity_id VARCHAR NOT NULL,
  code VARCHAR NOT NULL,
  detail VARCHAR,
  run_id VARCHAR
);
