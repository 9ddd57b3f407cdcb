-- What identity keeps that is not history: keys, reservations, secrets, sessions. Every decision about these is made under a
-- row lock, never from a view that may lag. Texts about people are sealed (kernel::Sealed) with a key of theirs; what people
-- are found by is a keyed hash.

CREATE SCHEMA identity;

-- Destroying `wrapped` erases a person from every copy of the log. The row stays, so that nobody gets a second key.
CREATE TABLE identity.subject_keys (
    subject      text        PRIMARY KEY,
    wrapped      bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);

-- What only one person can have. Claimed first, held once the person's stream says so (ADR 0020).
CREATE TABLE identity.handles (
    kind       text        NOT NULL CHECK (kind IN ('email', 'username', 'google', 'github')),
    digest     bytea       NOT NULL,
    person     text        NOT NULL,
    held       boolean     NOT NULL DEFAULT false,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, digest)
);
CREATE INDEX handles_person ON identity.handles (person);

CREATE TABLE identity.credentials (
    person          text        PRIMARY KEY,
    -- Counts the passwords; 0: there is none.
    password_number integer     NOT NULL DEFAULT 0,
    -- A PHC string.
    password_hash   text,
    -- Sealed; there before it is enabled, while its owner sets it up.
    totp_secret     jsonb,
    totp_enabled    boolean     NOT NULL DEFAULT false,
    -- The last step whose code was accepted: none up to it is accepted again (RFC 6238, 5.2).
    totp_step       bigint      NOT NULL DEFAULT 0,
    recovery_number integer     NOT NULL DEFAULT 0,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((password_number = 0) = (password_hash IS NULL))
);

CREATE TABLE identity.recovery_codes (
    person  text        NOT NULL REFERENCES identity.credentials ON DELETE CASCADE,
    digest  bytea       NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (person, digest)
);

CREATE TABLE identity.sessions (
    session    text        PRIMARY KEY,
    person     text        NOT NULL,
    -- Which refresh token is the current one.
    counter    bigint      NOT NULL DEFAULT 0,
    rotated_at timestamptz NOT NULL DEFAULT now(),
    -- How and when its holder showed who they are (RFC 8176).
    amr        text[]      NOT NULL,
    auth_time  timestamptz NOT NULL DEFAULT now(),
    -- Sealed.
    origin     jsonb       NOT NULL,
    tenant     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    -- However often it is refreshed.
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    reason     text,
    CHECK ((ended_at IS NULL) = (reason IS NULL))
);
CREATE INDEX sessions_person ON identity.sessions (person) WHERE ended_at IS NULL;
CREATE INDEX sessions_over ON identity.sessions (expires_at);

-- Links and codes that work once: by their hash.
CREATE TABLE identity.codes (
    digest     bytea       PRIMARY KEY,
    purpose    text        NOT NULL,
    person     text,
    detail     jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX codes_person ON identity.codes (person, purpose);
CREATE INDEX codes_over ON identity.codes (expires_at);

-- Sign-ins of devices that have no keyboard (RFC 8628): the device asks again and again, somebody decides elsewhere.
CREATE TABLE identity.devices (
    -- Hashes of the two codes.
    device           bytea       PRIMARY KEY,
    user_code        bytea       NOT NULL UNIQUE,
    -- What asks, and from where; wrapped, for nobody is known yet whose key could seal it.
    about            bytea       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    polled_at        timestamptz,
    interval_seconds integer     NOT NULL,
    -- Nothing: nobody has decided.
    approved         boolean,
    -- Who has, and what the device's session is to be like.
    person           text,
    session          text,
    amr              text[],
    auth_time        timestamptz,
    tenant           text,
    password_number  integer,
    used_at          timestamptz,
    CHECK ((approved IS NULL) = (person IS NULL))
);
CREATE INDEX devices_person ON identity.devices (person);
CREATE INDEX devices_over ON identity.devices (expires_at);

-- How often something was tried that may be guessed, as a theoretical arrival time (GCRA). By a keyed hash of what was tried on.
CREATE TABLE identity.attempts (
    digest bytea       PRIMARY KEY,
    tat    timestamptz NOT NULL
);
CREATE INDEX attempts_over ON identity.attempts (tat);

-- Keys that sign access tokens. The private half is wrapped.
CREATE TABLE identity.signing_keys (
    kid        text        PRIMARY KEY,
    public     bytea       NOT NULL,
    wrapped    bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- From when on it signs: verifiers know it by then.
    signs_from timestamptz NOT NULL,
    -- Until when its signatures count; nothing: it has not been replaced.
    until      timestamptz
);
