-- What a language model was asked of items and users beside their profiles.
CREATE TABLE augmentations (
  kind VARCHAR NOT NULL,
  entity_id VARCHAR NOT NULL,
  aspect VARCHAR NOT NULL,
  text VARCHAR,
  liked VARCHAR,
  refused VARCHAR,
  candidates VARCHAR[] NOT NULL,
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
