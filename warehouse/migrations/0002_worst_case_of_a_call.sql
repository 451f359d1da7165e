-- What an attempt could have cost at most, for those whose outcome nobody knows.
ALTER TABLE llm_calls ADD COLUMN worst_tokens BIGINT;
ALTER TABLE llm_calls ADD COLUMN worst_usd DOUBLE;
