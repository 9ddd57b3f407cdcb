-- Projection `tenants`, version 1: who belongs to which tenant, and who has been asked. For reading: who may do what is
-- decided on the tenant's own stream.

CREATE SCHEMA tenants_v1;

CREATE TABLE tenants_v1.tenants (
    tenant_id  text        PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at  timestamptz,
    position   bigint      NOT NULL
);

CREATE TABLE tenants_v1.members (
    tenant_id text        NOT NULL,
    person    text        NOT NULL,
    role      text        NOT NULL,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, person)
);
CREATE INDEX members_person ON tenants_v1.members (person, joined_at);

CREATE TABLE tenants_v1.invites (
    tenant_id  text        NOT NULL,
    invite     text        NOT NULL,
    -- Sealed.
    email      jsonb       NOT NULL,
    role       text        NOT NULL,
    invited_by text        NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, invite)
);

-- The keys of programs, by hashes of their secrets: asked on every use, so decided here. What happened to them is history, too.
CREATE TABLE identity.api_keys (
    key          text        PRIMARY KEY,
    tenant       text        NOT NULL,
    owner        text        NOT NULL,
    name         text        NOT NULL,
    prefix       text        NOT NULL,
    digest       bytea       NOT NULL UNIQUE,
    -- The secret before the last rotation goes on for a while.
    old_digest   bytea       UNIQUE,
    old_until    timestamptz,
    scopes       text[]      NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    -- Recorded in the key's stream: until then it is worth nothing.
    issued       boolean     NOT NULL DEFAULT false
);
CREATE INDEX api_keys_tenant ON identity.api_keys (tenant, created_at);
CREATE INDEX api_keys_owner ON identity.api_keys (owner);
