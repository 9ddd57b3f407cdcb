-- Projection `inbox`, version 1: queued commands that were refused.

CREATE SCHEMA inbox_v1;

CREATE TABLE inbox_v1.rejected (
    tenant_id  text        NOT NULL,
    inbox_id   text        NOT NULL,
    command_id text        NOT NULL,
    category   text        NOT NULL,
    stream_id  text        NOT NULL,
    command    text        NOT NULL,
    principal  text        NOT NULL,
    status     integer     NOT NULL,
    code       text        NOT NULL,
    detail     text        NOT NULL,
    body       jsonb,
    taken_at   timestamptz NOT NULL,
    dismissed  boolean     NOT NULL DEFAULT false,
    position   bigint      NOT NULL,
    PRIMARY KEY (tenant_id, inbox_id)
);

CREATE INDEX rejected_newest ON inbox_v1.rejected (tenant_id, position DESC);
CREATE INDEX rejected_by_command ON inbox_v1.rejected (tenant_id, command_id);
