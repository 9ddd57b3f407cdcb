-- Projection `workflows`, version 1: every definition of every workflow.

CREATE SCHEMA workflows_v1;

CREATE TABLE workflows_v1.definitions (
    tenant_id   text        NOT NULL,
    workflow_id text        NOT NULL,
    version     integer     NOT NULL,
    hash        text        NOT NULL,
    document    jsonb       NOT NULL,
    definition  jsonb       NOT NULL,
    defined_at  timestamptz NOT NULL,
    defined_by  text        NOT NULL,
    PRIMARY KEY (tenant_id, workflow_id, version)
);

CREATE TABLE workflows_v1.workflows (
    tenant_id      text        NOT NULL,
    workflow_id    text        NOT NULL,
    latest_version integer     NOT NULL,
    name           text,
    status         text        NOT NULL CHECK (status IN ('active', 'retired')),
    changed_at     timestamptz NOT NULL,
    position       bigint      NOT NULL,
    PRIMARY KEY (tenant_id, workflow_id)
);
