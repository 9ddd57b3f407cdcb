-- Folds beside live rows: which are running, and what a schema that was switched out needs to go live again.

CREATE TABLE airstream.folds (
    -- `name_vN`. Whether the fold still runs is not told by this row but by the advisory lock of its connection.
    projection  text             PRIMARY KEY,
    verb        text             NOT NULL CHECK (verb IN ('rebuild', 'verify')),
    phase       text             NOT NULL,
    done        bigint           NOT NULL DEFAULT 0,
    total       bigint           NOT NULL DEFAULT 0,
    per_second  double precision NOT NULL DEFAULT 0,
    eta_seconds double precision,
    started_at  timestamptz      NOT NULL DEFAULT now(),
    updated_at  timestamptz      NOT NULL DEFAULT now()
);

CREATE TABLE airstream.kept (
    projection text        PRIMARY KEY,
    -- Where the rows of `name_vN_old` stand, and in which log.
    position   bigint      NOT NULL,
    log        text        NOT NULL,
    -- The projection's parking lot as it was then: those commits are not in the kept rows.
    parked     jsonb       NOT NULL,
    kept_at    timestamptz NOT NULL DEFAULT now()
);

-- How often a rollback has moved the consumer: what its runner knows of place and parking lot is void then.
ALTER TABLE airstream.checkpoints ADD COLUMN moved bigint NOT NULL DEFAULT 0;
