-- What every consumer of the log needs: how far it has come, what it has set aside, what it has to do.

CREATE SCHEMA airstream;

CREATE TABLE airstream.checkpoints (
    consumer   text        PRIMARY KEY,
    -- The last message of the log that was handled or parked. The log has no holes, so one number says it all.
    position   bigint      NOT NULL DEFAULT 0,
    -- Which log: positions of one log mean nothing in another, and a log that was made anew or restored is another.
    log        text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE airstream.parked (
    consumer  text        NOT NULL,
    position  bigint      NOT NULL,
    -- The subject in the log: what is parked under one subject is handled in order.
    subject   text        NOT NULL,
    tenant_id text        NOT NULL,
    state     text        NOT NULL CHECK (state IN ('cause', 'behind', 'skipped')),
    reason    text        NOT NULL,
    tries     integer     NOT NULL DEFAULT 1,
    released  boolean     NOT NULL DEFAULT false,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, position)
);

CREATE INDEX parked_by_subject ON airstream.parked (consumer, subject, position);

CREATE TABLE airstream.effects (
    tenant_id   text        NOT NULL,
    consumer    text        NOT NULL,
    category    text        NOT NULL,
    stream_id   text        NOT NULL,
    name        text        NOT NULL,
    event_id    text        NOT NULL,
    correlation text        NOT NULL,
    due         timestamptz NOT NULL,
    request     jsonb       NOT NULL,
    attempts    integer     NOT NULL DEFAULT 0,
    state       text        NOT NULL DEFAULT 'scheduled' CHECK (state IN ('scheduled', 'done', 'parked')),
    note        text        NOT NULL DEFAULT '',
    revive      boolean     NOT NULL DEFAULT false,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    settled_at  timestamptz,
    PRIMARY KEY (tenant_id, consumer, category, stream_id, name)
);

-- A reactor lists what is left to do when it starts; what is done only grows.
CREATE INDEX effects_to_do ON airstream.effects (consumer) WHERE state <> 'done';
