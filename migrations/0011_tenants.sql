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

-- Invitations by what their codes and addresses hash to: who comes with a code is looked for here, and so is whatever is to
-- be destroyed with the person whom an address belongs to.
CREATE TABLE identity.invites (
    invite     text        PRIMARY KEY,
    tenant     text        NOT NULL,
    address    bytea       NOT NULL,
    code       bytea       NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX invites_address ON identity.invites (address, tenant);

-- The keys of programs: asked on every use, so decided here. What happened to them is history, too.
CREATE TABLE identity.api_keys (
    key          text        PRIMARY KEY,
    tenant       text        NOT NULL,
    owner        text        NOT NULL,
    name         text        NOT NULL,
    scopes       text[]      NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_tenant ON identity.api_keys (tenant, key) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_owner ON identity.api_keys (owner, tenant) WHERE revoked_at IS NULL;

-- Their secrets, by hash; a rotation adds one, and the older ones go on for a while.
CREATE TABLE identity.api_key_secrets (
    digest        bytea       PRIMARY KEY,
    key           text        NOT NULL REFERENCES identity.api_keys ON DELETE CASCADE,
    prefix        text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    -- How long older secrets go on beside this one.
    overlap_until timestamptz,
    -- When a newer one has replaced it for good.
    replaced_at   timestamptz,
    -- The version of the key's stream that records it: until there is one, the secret is worth nothing.
    version       bigint
);
CREATE INDEX api_key_secrets_key ON identity.api_key_secrets (key, version);
CREATE INDEX api_key_secrets_over ON identity.api_key_secrets (expires_at);
