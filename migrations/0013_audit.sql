-- What tenants may see of what happened, what people may take along, and what is left of those who are gone (ADR 0024).

-- Questions on behalf of a tenant are asked as this role: it owns nothing and cannot pass by row-level security.
DO $$
DECLARE
    remedy CONSTANT text := format(
        'as a superuser of this server: CREATE ROLE airstream_tenant NOLOGIN; GRANT airstream_tenant TO %I;', current_user);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'airstream_tenant') THEN
        BEGIN
            CREATE ROLE airstream_tenant NOLOGIN;
        EXCEPTION
            -- Somebody else migrates another database of this server at the same time.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role airstream_tenant is missing, and % may not create it. Once, %', current_user, remedy;
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'airstream_tenant', 'MEMBER') THEN
        BEGIN
            EXECUTE format('GRANT airstream_tenant TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION '% is no member of the role airstream_tenant, and may not become one. Once, %', current_user, remedy;
        END;
    END IF;
    IF (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'airstream_tenant') THEN
        RAISE EXCEPTION 'the role airstream_tenant passes by row-level security. Once, as a superuser of this server: %',
            'ALTER ROLE airstream_tenant NOSUPERUSER NOBYPASSRLS;';
    END IF;
END $$;

-- Projection `audit`, version 1: who did what, when, tenant by tenant. Each row's hash covers the row and the hash before.
CREATE SCHEMA audit_v1;

CREATE TABLE audit_v1.entries (
    tenant_id   text        NOT NULL,
    position    bigint      NOT NULL,
    -- Which event of the commit, from 0.
    number      integer     NOT NULL,
    at          timestamptz NOT NULL,
    actor       text        NOT NULL,
    action      text        NOT NULL,
    category    text        NOT NULL,
    subject     text        NOT NULL,
    correlation text        NOT NULL,
    -- As the event has it: sealed where it is personal.
    data        jsonb       NOT NULL,
    hash        bytea       NOT NULL,
    PRIMARY KEY (tenant_id, position, number)
);
CREATE INDEX entries_actor ON audit_v1.entries (tenant_id, actor, position);
CREATE INDEX entries_subject ON audit_v1.entries (category, subject, position);

-- From where to where in the log somebody was a member: what they do about their account concerns the tenant, too.
CREATE TABLE audit_v1.spans (
    tenant_id text   NOT NULL,
    person    text   NOT NULL,
    since     bigint NOT NULL,
    until     bigint,
    PRIMARY KEY (tenant_id, person, since)
);
CREATE INDEX spans_person ON audit_v1.spans (person);

-- Everything about a person in one archive, sealed with their key.
CREATE TABLE identity.exports (
    export       text        PRIMARY KEY,
    person       text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    ready_at     timestamptz,
    -- Why there will be none.
    failure      text,
    archive      bytea,
    bytes        bigint,
    expires_at   timestamptz NOT NULL,
    CHECK ((archive IS NULL) = (ready_at IS NULL))
);
CREATE INDEX exports_person ON identity.exports (person, requested_at);
CREATE INDEX exports_over ON identity.exports (expires_at);

-- What was erased, of whom (an id that means nobody any more), and what remains to be done.
CREATE TABLE identity.erasures (
    person       text        PRIMARY KEY,
    -- What the rest goes by once its rows are gone: tenants, keys, invitations. Ids.
    plan         jsonb       NOT NULL,
    erased       jsonb       NOT NULL,
    begun_at     timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);

-- The platform sees all, where it says that it is the platform; a tenant sees its own. Whoever says neither sees nothing,
-- also the owner of the tables.
DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY['audit_v1.entries tenant_id', 'audit_v1.spans tenant_id', 'identity.api_keys tenant', 'identity.invites tenant'] LOOP
        EXECUTE format('ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY', split_part(guarded, ' ', 1));
        EXECUTE format('ALTER TABLE %1$s FORCE ROW LEVEL SECURITY', split_part(guarded, ' ', 1));
        EXECUTE format('CREATE POLICY platform ON %1$s TO CURRENT_USER
            USING (current_setting(''airstream.scope'', true) = ''platform'')', split_part(guarded, ' ', 1));
        -- After a transaction that set it, the setting is an empty text rather than none.
        EXECUTE format('CREATE POLICY tenant ON %1$s TO airstream_tenant
            USING (%2$I = nullif(current_setting(''airstream.tenant'', true), ''''))',
            split_part(guarded, ' ', 1), split_part(guarded, ' ', 2));
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA identity, audit_v1 TO airstream_tenant;
GRANT SELECT ON audit_v1.entries TO airstream_tenant;
GRANT SELECT, INSERT, UPDATE ON identity.api_keys TO airstream_tenant;
