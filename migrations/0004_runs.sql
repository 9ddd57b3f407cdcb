-- Projection `runs`, version 1: runs of workflows and their steps.

CREATE SCHEMA runs_v1;

CREATE TABLE runs_v1.runs (
    tenant_id          text        NOT NULL,
    run_id             text        NOT NULL,
    workflow_id        text        NOT NULL,
    definition_version integer     NOT NULL,
    status             text        NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    input              jsonb,
    output             jsonb,
    error              jsonb,
    current_step       text,
    started_by         text        NOT NULL,
    started_at         timestamptz NOT NULL,
    finished_at        timestamptz,
    version            bigint      NOT NULL,
    -- Where its first event stands: the order of lists, and what their cursors hold.
    started_position   bigint      NOT NULL,
    position           bigint      NOT NULL,
    PRIMARY KEY (tenant_id, run_id)
);

CREATE INDEX runs_newest ON runs_v1.runs (tenant_id, started_position DESC);
CREATE INDEX runs_of_workflow ON runs_v1.runs (tenant_id, workflow_id, started_position DESC);

CREATE TABLE runs_v1.steps (
    tenant_id    text        NOT NULL,
    run_id       text        NOT NULL,
    step_id      text        NOT NULL,
    ordinal      integer     NOT NULL,
    name         text        NOT NULL,
    kind         text        NOT NULL,
    status       text        NOT NULL CHECK (status IN
                     ('pending', 'scheduled', 'running', 'waiting', 'retrying', 'completed', 'failed', 'cancelled')),
    attempt      integer     NOT NULL,
    worker       text,
    output       jsonb,
    error        jsonb,
    due_at       timestamptz,
    deadline     timestamptz,
    scheduled_at timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    PRIMARY KEY (tenant_id, run_id, step_id)
);
