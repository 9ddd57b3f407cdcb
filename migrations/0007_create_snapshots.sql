-- Snapshots of folded streams: a cache beside the log. `TRUNCATE airstream.snapshots` is safe at any time.

-- Unlogged: what is lost in a crash is folded again from the log, so it need not be written twice, and replicas and
-- backups can do without it.
CREATE UNLOGGED TABLE airstream.snapshots (
    tenant_id text        NOT NULL,
    category  text        NOT NULL,
    stream_id text        NOT NULL,
    -- Hash of the code that folded it. During an upgrade old and new code run side by side; each keeps its own.
    fold      text        NOT NULL,
    -- Which log: positions of one log mean nothing in another.
    log       text        NOT NULL,
    version   bigint      NOT NULL,
    position  bigint      NOT NULL,
    body      bytea       NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, category, stream_id, fold)
);
