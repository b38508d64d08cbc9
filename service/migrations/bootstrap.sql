-- Runs before every migration, as whoever migrates: roles and the empty schema. Changes nothing when they are there.
--
--   redemption_owner   owns every object and every function body; nobody logs in as it
--   redemption_app     what the service may do: call functions and read views, no table at all; logins are its members
--   redemption_upkeep  what the worker may do on top: end holds and lots, seal the hash chain
--   redemption_auditor may read everything and change nothing: verifies the ledger

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['redemption_owner', 'redemption_app', 'redemption_upkeep', 'redemption_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
    -- A managed database's master user is no superuser: it may act as a role only as its member.
    -- Since Postgres 16 its maker may grant a role, but not act as it.
    IF NOT pg_has_role(
        current_user, 'redemption_owner',
        CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END
    ) THEN
        EXECUTE format('GRANT redemption_owner TO %I', current_user);
    END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS ledger AUTHORIZATION redemption_owner;

SET ROLE redemption_owner;

CREATE TABLE IF NOT EXISTS ledger.migrations (
    number integer PRIMARY KEY CHECK (number > 0),
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
