-- how the profile of one item or user changed over the snapshots that are kept, oldest first
CREATE OR REPLACE MACRO profile_history(id) AS TABLE
SELECT
  versions.created_at AS since,
  versions.in_snapshot AS first_snapshot,
  versions.kind,
  versions.profile,
  versions.source,
  versions.model,
  versions.prompt_id,
  versions.prompt_version
FROM profile_versions AS versions
WHERE versions.entity_id = id::VARCHAR
WINDOW same_entity AS (PARTITION BY versions.kind ORDER BY versions.counter)
QUALIFY
  lag(versions.counter) OVER same_entity IS NULL
  OR lag(versions.profile) OVER same_entity IS DISTINCT FROM versions.profile
  OR lag(versions.model) OVER same_entity IS DISTINCT FROM versions.model
  OR lag(versions.prompt_version) OVER same_entity IS DISTINCT FROM versions.prompt_version
ORDER BY versions.kind, versions.counter;
