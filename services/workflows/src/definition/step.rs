//! One step of a definition.

use chrono::{DateTime, Datelike};
use events::workflow::{Kind, Pass, Retry, Step, StepKind, Task, Wait};
use serde_json::Value;

use super::fields::{self, Errors, Object, is_token, shape};
use super::http;
use super::parse::MAX_NAME_CHARS;
use crate::seconds::MAX_TIMEOUT_MS;

/// Most retries of a step.
pub(super) const MAX_RETRIES: u32 = 100;

/// Longest id of a step, in bytes.
const MAX_ID_BYTES: usize = 64;

/// Longest name of a task, in bytes: it becomes a subject token.
const MAX_TASK_BYTES: usize = 96;

/// An attempt without a timeout of its own gets this long, in milliseconds.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// Longest wait, in milliseconds: a leap year.
const MAX_WAIT_MS: u64 = 366 * 24 * 60 * 60 * 1000;

const DEFAULT_DELAY_MS: u64 = 1_000;
const DEFAULT_FACTOR: f64 = 2.0;
const DEFAULT_MAX_DELAY_MS: u64 = 60_000;
const MAX_FACTOR: f64 = 100.0;

const KNOWN: &[&str] = &["id", "name", "kind", "timeout", "retry", "params", "http", "wait", "output"];

/// Fields that the format will have; refused by name so that nobody believes they work already.
const RESERVED: &[&str] = &[
    "needs",
    "input",
    "when",
    "timeouts",
    "compensate",
    "pivot",
    "save_point",
    "optional",
    "map",
    "switch",
    "loop",
    "fork",
    "race",
    "listen",
    "approval",
    "child",
    "emit",
    "set",
    "transform",
    "llm",
    "lock",
    "concurrency",
    "rate",
    "priority",
    "queue",
    "cache",
    "on_exhausted",
];

const KINDS: [Kind; 4] = [Kind::Task, Kind::Http, Kind::Wait, Kind::Pass];

/// Reads a step; `None` when something is wrong with it.
pub(super) fn read(value: &Value, at: &str, max_retries: u32, errors: &mut Errors) -> Option<Step> {
    let step = Object::read(value, at, errors)?;
    step.only(KNOWN, RESERVED, errors);
    let id = id(&step, errors);
    let kind = kind(&step, errors)?;
    misplaced(&step, kind, errors);
    let name = name(&step, kind, errors);
    // Everything is read before anything is given up, so that all complaints are made.
    let timeout_ms = step.seconds("timeout", 1, MAX_TIMEOUT_MS, errors).unwrap_or(DEFAULT_TIMEOUT_MS);
    let retry = retry(&step, max_retries, errors);
    let kind = match kind {
        Kind::Task => {
            let params = step.get("params").cloned().unwrap_or_default();
            Some(StepKind::Task(Task { params, timeout_ms, retry }))
        }
        Kind::Http => http::read(&step, timeout_ms, retry, errors).map(StepKind::Http),
        Kind::Wait => wait(&step, errors).map(StepKind::Wait),
        Kind::Pass => Some(StepKind::Pass(Pass { output: step.get("output").cloned() })),
    };
    let (id, kind) = (id?, kind?);
    let name = name.unwrap_or_else(|| id.clone());
    Some(Step { id, name, kind })
}

fn id(step: &Object<'_>, errors: &mut Errors) -> Option<String> {
    let id = match step.required("id", errors)? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) if id.is_u64() || id.is_i64() => Some(id.to_string()),
        _ => None,
    };
    let id = id.filter(|id| is_token(id, MAX_ID_BYTES));
    if id.is_none() {
        let detail = format!("must be a whole number, or a text of 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ -.");
        errors.add(&step.pointer("id"), detail);
    }
    id
}

fn kind(step: &Object<'_>, errors: &mut Errors) -> Option<Kind> {
    let Some(given) = step.get("kind") else {
        return Some(match step {
            _ if step.get("http").is_some() => Kind::Http,
            _ if step.get("wait").is_some() => Kind::Wait,
            _ => Kind::Task,
        });
    };
    let known = KINDS.into_iter().find(|kind| given.as_str() == Some(kind.as_str()));
    if known.is_none() {
        let detail = match given.as_str() {
            Some(later) if RESERVED.contains(&later) => format!("`{later}` is not supported yet."),
            _ => "must be task, http, wait or pass.".to_owned(),
        };
        errors.add(&step.pointer("kind"), detail);
    }
    known
}

/// Complains about fields that belong to other kinds of steps.
fn misplaced(step: &Object<'_>, kind: Kind, errors: &mut Errors) {
    let own: &[&str] = match kind {
        Kind::Task => &["params", "timeout", "retry"],
        Kind::Http => &["http", "timeout", "retry"],
        Kind::Wait => &["wait"],
        Kind::Pass => &["output"],
    };
    for field in ["params", "timeout", "retry", "http", "wait", "output"] {
        if step.get(field).is_some() && !own.contains(&field) {
            errors.add(&step.pointer(field), format!("a step of kind `{}` has no `{field}`.", kind.as_str()));
        }
    }
}

fn name(step: &Object<'_>, kind: Kind, errors: &mut Errors) -> Option<String> {
    if kind == Kind::Task {
        step.required("name", errors)?;
    }
    let name = step.text("name", MAX_NAME_CHARS, errors)?;
    if kind == Kind::Task && !is_token(name, MAX_TASK_BYTES) {
        let detail = format!("a task's name is what workers listen for: use 1 to {MAX_TASK_BYTES} of A-Z a-z 0-9 _ -.");
        errors.add(&step.pointer("name"), detail);
    }
    Some(name.to_owned())
}

fn retry(step: &Object<'_>, max_retries: u32, errors: &mut Errors) -> Retry {
    let at = step.pointer("retry");
    let given = step.get("retry").and_then(|retry| Object::read(retry, &at, errors));
    let Some(given) = given else {
        let (delay_ms, max_delay_ms) = (DEFAULT_DELAY_MS, DEFAULT_MAX_DELAY_MS);
        return Retry { max: max_retries, delay_ms, factor: DEFAULT_FACTOR, max_delay_ms };
    };
    given.only(&["max", "delay", "factor", "max_delay"], &["jitter", "when", "non_retryable"], errors);
    let max = given.whole("max", 0, MAX_RETRIES, errors).unwrap_or(max_retries);
    let delay_ms = given.seconds("delay", 0, MAX_TIMEOUT_MS, errors).unwrap_or(DEFAULT_DELAY_MS);
    let factor = given.get("factor").map_or(Some(DEFAULT_FACTOR), |factor| {
        let factor = factor.as_f64().filter(|factor| (1.0..=MAX_FACTOR).contains(factor));
        if factor.is_none() {
            errors.add(&given.pointer("factor"), format!("must be a number from 1 to {MAX_FACTOR}."));
        }
        factor
    });
    let longest = given.seconds("max_delay", 0, MAX_TIMEOUT_MS, errors);
    if longest.is_some_and(|longest| longest < delay_ms) {
        errors.add(&given.pointer("max_delay"), "must not be shorter than `delay`.");
    }
    // Who asks for a first pause over the default limit means it.
    let max_delay_ms = longest.unwrap_or(DEFAULT_MAX_DELAY_MS.max(delay_ms));
    Retry { max, delay_ms, factor: factor.unwrap_or(DEFAULT_FACTOR), max_delay_ms }
}

fn wait(step: &Object<'_>, errors: &mut Errors) -> Option<Wait> {
    let at = step.pointer("wait");
    let value = step.required("wait", errors)?;
    if value.is_number() {
        return fields::seconds(value, &at, 0, MAX_WAIT_MS, errors).map(Wait::ForMs);
    }
    if !value.is_object() {
        errors.add(&at, format!("must be a number of seconds or an object, not {}.", shape(value)));
        return None;
    }
    let wait = Object::read(value, &at, errors)?;
    wait.only(&["seconds", "until"], &[], errors);
    match (wait.get("seconds"), wait.get("until")) {
        (Some(_), None) => wait.seconds("seconds", 0, MAX_WAIT_MS, errors).map(Wait::ForMs),
        (None, Some(until)) => {
            let until = until.as_str().and_then(|until| DateTime::parse_from_rfc3339(until).ok());
            // Years with a sign or five digits are not RFC 3339 any more, and could not be read from the log.
            let until = until.map(|until| until.to_utc()).filter(|until| (1970..=9999).contains(&until.year()));
            if until.is_none() {
                errors.add(&wait.pointer("until"), "must be a moment such as 2027-01-31T08:00:00Z (RFC 3339).");
            }
            until.map(Wait::Until)
        }
        _ => {
            errors.add(&at, "must have either `seconds` or `until`.");
            None
        }
    }
}
