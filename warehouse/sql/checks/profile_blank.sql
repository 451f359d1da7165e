-- error: a profile of nothing but white space
SELECT kind, entity_id, source AS detail FROM profiles WHERE trim(profile, e' \t\r\n') = ''
