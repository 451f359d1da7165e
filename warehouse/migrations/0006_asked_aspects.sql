-- Which question beyond the profile a row in quarantine or a decision is about; null for a profile.
ALTER TABLE quarantine ADD COLUMN aspect VARCHAR;
ALTER TABLE decisions ADD COLUMN aspect VARCHAR;
