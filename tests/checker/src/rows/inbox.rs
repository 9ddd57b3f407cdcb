//! `inbox`: queued commands that were refused.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Expected, Row, row};
use crate::log::History;

pub(super) const TABLE: &str = "inbox_v1.rejected";

pub(super) fn fold(history: &History) -> Expected {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (commit, event) in history.events_of("inbox") {
        let data = |name: &str| event.data.get(name).cloned().unwrap_or_default();
        match event.kind.as_str() {
            "inbox.command_rejected" => {
                let refused = row([
                    ("tenant_id", json!(commit.tenant)),
                    ("inbox_id", json!(commit.subject)),
                    ("command_id", data("command_id")),
                    ("category", data("category")),
                    ("stream_id", data("id")),
                    ("command", data("command")),
                    ("principal", data("principal")),
                    ("status", data("status")),
                    ("code", data("code")),
                    ("detail", data("detail")),
                    ("body", data("body")),
                    ("taken_at", data("taken_at")),
                    ("dismissed", json!(false)),
                    ("position", json!(commit.position)),
                ]);
                rows.entry(&commit.stream).or_insert(refused);
            }
            "inbox.command_dismissed" => {
                if let Some(row) = rows.get_mut(commit.stream.as_str()) {
                    row.insert("dismissed".to_owned(), json!(true));
                }
            }
            _ => {}
        }
    }
    Expected { table: TABLE, key: &["tenant_id", "inbox_id"], rows: rows.into_values().collect() }
}
