-- Projection `commits`, version 1: every commit by its command id. It answers `airstream commands`, and it is the
-- executor's memory for command ids that are older than what it keeps of a stream.

CREATE SCHEMA commits_v1;

CREATE TABLE commits_v1.commits (
    tenant_id  text        NOT NULL,
    category   text        NOT NULL,
    stream_id  text        NOT NULL,
    commit_id  text        NOT NULL,
    position   bigint      NOT NULL,
    version    bigint      NOT NULL,
    command    text        NOT NULL,
    actor      text        NOT NULL,
    types      text[]      NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, category, stream_id, commit_id)
);

CREATE INDEX commits_by_position ON commits_v1.commits (tenant_id, position DESC);
CREATE INDEX commits_by_id ON commits_v1.commits (tenant_id, commit_id);
