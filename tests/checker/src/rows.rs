//! Rows equal the fold of the log. Each projection is folded here once more, plainly: one event after the other, the whole
//! log from its start, no batches and no upserts.

mod commits;
mod inbox;
mod runs;
mod workflows;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::log::History;
use crate::time::micros;
use crate::{Evidence, Found};

const LAW: &str = "rows equal the fold";

/// Every table that can be compared.
pub(crate) const TABLES: &[&str] =
    &[commits::TABLE, inbox::TABLE, runs::RUNS, runs::STEPS, workflows::DEFINITIONS, workflows::WORKFLOWS];

/// One row, by column.
type Row = Map<String, Value>;

/// What a table should have: the columns of its key, and its rows.
struct Expected {
    table: &'static str,
    key: &'static [&'static str],
    rows: Vec<Row>,
}

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    for table in evidence.rows.keys().filter(|table| !TABLES.contains(&table.as_str())) {
        found.add(LAW, format!("nobody knows the table `{table}`"));
    }
    if evidence.rows.is_empty() {
        return;
    }
    let expected = [commits::fold(history), inbox::fold(history)];
    let expected = expected.into_iter().chain(runs::fold(history)).chain(workflows::fold(history));
    for expected in expected {
        if let Some(rows) = evidence.rows.get(expected.table) {
            compare(&expected, rows, found);
        }
    }
}

fn compare(expected: &Expected, actual: &[Value], found: &mut Found) {
    let name = |row: &Row| -> Vec<String> {
        expected.key.iter().map(|column| row.get(*column).map(plain).unwrap_or_default()).collect()
    };
    let table = expected.table;
    let mut rows: BTreeMap<Vec<String>, &Row> = BTreeMap::new();
    for row in actual {
        let Some(row) = row.as_object() else {
            found.add(LAW, format!("`{table}` has a row that is no object: {row}"));
            continue;
        };
        if rows.insert(name(row), row).is_some() {
            found.add(LAW, format!("`{table}` has the row {:?} twice", name(row)));
        }
    }
    for wanted in &expected.rows {
        let key = name(wanted);
        let Some(row) = rows.remove(&key) else {
            found.add(LAW, format!("`{table}` lacks the row {key:?}: {}", Value::Object(wanted.clone())));
            continue;
        };
        for (column, value) in wanted {
            let there = row.get(column).unwrap_or(&Value::Null);
            if !same(value, there) {
                found.add(LAW, format!("`{table}` {key:?}: `{column}` is {there} and should be {value}"));
            }
        }
        for column in row.keys().filter(|column| !wanted.contains_key(*column)) {
            found.add(LAW, format!("`{table}` has a column `{column}` that the checker does not know"));
        }
    }
    for key in rows.keys() {
        found.add(LAW, format!("`{table}` has the row {key:?}, which the log does not account for"));
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Equal, where a moment may be written in two ways and a number as an integer or not.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::String(one), Value::String(other)) => {
            one == other || micros(one).is_some_and(|one| micros(other) == Some(one))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// A row from pairs.
fn row<const N: usize>(columns: [(&str, Value); N]) -> Row {
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
