-- Roles and databases, with the passwords of the secrets' files. Safe to run again: a password that was
-- replaced in its file is replaced here.
\set temporal_password `cat /run/secrets/temporal-password`
\set helix_password `cat /run/secrets/helix-password`

SELECT format('CREATE ROLE %I LOGIN', name)
  FROM (VALUES ('temporal'), ('helix')) AS wanted (name)
 WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec

ALTER ROLE temporal PASSWORD :'temporal_password';
ALTER ROLE helix PASSWORD :'helix_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
  FROM (VALUES ('temporal', 'temporal'), ('temporal_visibility', 'temporal'), ('helix', 'helix'))
       AS wanted (name, owner)
 WHERE name NOT IN (SELECT datname FROM pg_database) \gexec

REVOKE ALL ON DATABASE temporal, temporal_visibility, helix, postgres FROM PUBLIC;
