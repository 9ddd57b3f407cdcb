//! `workflows`: every definition, and the newest word on every workflow.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Expected, Row, row};
use crate::log::History;

pub(super) const DEFINITIONS: &str = "workflows_v1.definitions";
pub(super) const WORKFLOWS: &str = "workflows_v1.workflows";

pub(super) fn fold(history: &History) -> [Expected; 2] {
    let mut definitions: Vec<Row> = Vec::new();
    let mut workflows: BTreeMap<&str, Row> = BTreeMap::new();
    for (commit, event) in history.events_of("workflow") {
        let data = |name: &str| event.data.get(name).cloned().unwrap_or_default();
        // A retirement leaves the newest version and its title as they are.
        let (version, name, status) = match event.kind.as_str() {
            "workflow.defined" => {
                definitions.push(row([
                    ("tenant_id", json!(commit.tenant)),
                    ("workflow_id", json!(commit.subject)),
                    ("version", data("version")),
                    ("hash", data("hash")),
                    ("document", data("document")),
                    ("definition", data("definition")),
                    ("defined_at", json!(event.time)),
                    ("defined_by", json!(event.actor)),
                ]));
                (data("version"), data("definition").get("name").cloned().unwrap_or_default(), "active")
            }
            "workflow.retired" => {
                let before = workflows.get(commit.stream.as_str());
                let kept = |column: &str| before.and_then(|row| row.get(column)).cloned();
                (kept("latest_version").unwrap_or(json!(0)), kept("name").unwrap_or(Value::Null), "retired")
            }
            _ => continue,
        };
        let newest = row([
            ("tenant_id", json!(commit.tenant)),
            ("workflow_id", json!(commit.subject)),
            ("latest_version", version),
            ("name", name),
            ("status", json!(status)),
            ("changed_at", json!(event.time)),
            ("position", json!(commit.position)),
        ]);
        workflows.insert(&commit.stream, newest);
    }
    [
        Expected { table: DEFINITIONS, key: &["tenant_id", "workflow_id", "version"], rows: definitions },
        Expected { table: WORKFLOWS, key: &["tenant_id", "workflow_id"], rows: workflows.into_values().collect() },
    ]
}
