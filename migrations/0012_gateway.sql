-- What instances of the HTTP door have to agree about.

-- Budgets of rate limits, out of which instances take slices (ADR 0021). Unlogged: after a crash every budget is full again,
-- and taking a slice never waits for a disk. Times are microseconds since 1970, so that the arithmetic is exact.
CREATE UNLOGGED TABLE airstream.budgets (
    -- A hash of whose budget it is, and for what.
    bucket  bytea   PRIMARY KEY,
    -- The theoretical arrival time of GCRA: when the budget will be full again.
    tat     bigint  NOT NULL,
    -- The last slice: how much was asked for or given, on what terms, and when.
    granted bigint  NOT NULL,
    step    bigint  NOT NULL,
    room    bigint  NOT NULL,
    at      bigint  NOT NULL
) WITH (fillfactor = 70);

-- What an idempotency key stood for when its caller used it first. Unlogged: it tells callers of their mistakes; that nothing
-- is done twice rests on the log.
CREATE UNLOGGED TABLE airstream.idempotency_keys (
    -- A hash of caller and key.
    digest  bytea       PRIMARY KEY,
    -- A fingerprint of method, path and body.
    request text        NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_keys_used_at ON airstream.idempotency_keys (used_at);
