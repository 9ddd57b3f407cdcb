-- Which instance does what. Nothing here is truth: dropped rows are taken again, under newer epochs.

CREATE TABLE airstream.instances (
    instance text        PRIMARY KEY,
    -- What it is able to do: lease names.
    wants    text[]      NOT NULL,
    -- It holds a session lock with this number: when that is free, the instance is dead, whatever `until` says.
    session  integer     NOT NULL,
    until    timestamptz NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE airstream.leases (
    name   text        PRIMARY KEY,
    holder text,
    epoch  bigint      NOT NULL,
    until  timestamptz NOT NULL,
    since  timestamptz NOT NULL DEFAULT now()
);

-- One source of epochs for all leases: a lease whose row was lost still gets a newer one.
CREATE SEQUENCE airstream.epochs;

-- The epoch of the newest owner: whoever has an older one cannot move the checkpoint any more.
ALTER TABLE airstream.checkpoints ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
