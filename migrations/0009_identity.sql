-- What identity keeps that is not history: keys, reservations, secrets, sessions. Every decision about these is made under a
-- row lock, never from a view that may lag. Texts about people are sealed (kernel::Sealed) with a key of theirs.

CREATE SCHEMA identity;

-- Destroying `wrapped` erases a person from every copy of the log.
CREATE TABLE identity.subject_keys (
    subject      text        PRIMARY KEY,
    wrapped      bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);
