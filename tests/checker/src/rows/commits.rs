//! `commits`: every commit by its command id.

use serde_json::json;

use super::{Expected, row};
use crate::log::History;

pub(super) const TABLE: &str = "commits_v1.commits";

pub(super) fn fold(history: &History) -> Expected {
    let rows = history.commits.iter().filter_map(|commit| {
        let (first, last) = (commit.events.first()?, commit.events.last()?);
        let types: Vec<&str> = commit.events.iter().map(|event| event.kind.as_str()).collect();
        Some(row([
            ("tenant_id", json!(commit.tenant)),
            ("category", json!(commit.category)),
            ("stream_id", json!(commit.subject)),
            ("commit_id", json!(commit.id)),
            ("position", json!(commit.position)),
            ("version", json!(last.version)),
            ("command", json!(first.command)),
            ("actor", json!(first.actor)),
            ("types", json!(types)),
            ("decided_at", json!(first.time)),
        ]))
    });
    Expected { table: TABLE, key: &["tenant_id", "category", "stream_id", "commit_id"], rows: rows.collect() }
}
