//! From what people write to what is executed. Total: any JSON gives a definition or a list of complaints.

use std::collections::{BTreeMap, BTreeSet};

use events::workflow::{Definition, Kind, Step};
use kernel::{FieldError, Problem};
use serde_json::Value;

use super::fields::{Errors, Object, shape, text};
use super::step;
use kernel::storable;

/// Longest definition, in bytes, as it was sent and as it is kept.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Most steps of a workflow.
pub const MAX_STEPS: usize = 1_000;

/// `pass` steps are done in the same commit as what leads to them, and a commit is one message of bounded size.
const MAX_PASSES_IN_A_ROW: usize = 100;

/// Longest name or label, in characters.
pub(super) const MAX_NAME_CHARS: usize = 200;

const MAX_DESCRIPTION_CHARS: usize = 2_000;
const MAX_LABELS: usize = 50;

/// Retries after a failed attempt when nobody says otherwise.
const DEFAULT_MAX_RETRIES: u32 = 3;

const KNOWN: &[&str] = &["workflow_id", "name", "description", "labels", "steps", "max_retries"];

/// Fields that the format will have; refused by name so that nobody believes they work already.
const RESERVED: &[&str] = &[
    "version",
    "input_schema",
    "output",
    "schedule",
    "triggers",
    "on_failure",
    "on_cancel",
    "deadline",
    "retention",
    "concurrency",
    "rate",
    "priority",
    "queue",
];

/// Reads the body of `define`.
///
/// # Errors
/// 413 when it is too large, 400 when it is not JSON.
pub(super) fn read(body: &[u8]) -> Result<Value, Problem> {
    if body.len() > MAX_DOCUMENT_BYTES {
        return Err(storable::too_large("definition", MAX_DOCUMENT_BYTES));
    }
    let document: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::malformed(format!("The definition is not valid JSON: {error}.")))?;
    if !storable::fits(&document, body.len(), MAX_DOCUMENT_BYTES) {
        return Err(storable::too_large("definition", MAX_DOCUMENT_BYTES));
    }
    Ok(document)
}

/// Compiles a definition for the workflow of that id.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn compile(document: &Value, workflow_id: &str) -> Result<Definition, Vec<FieldError>> {
    let mut errors = Errors::default();
    let found = definition(document, workflow_id, &mut errors);
    errors.into_result(found)
}

fn definition(document: &Value, workflow_id: &str, errors: &mut Errors) -> Option<Definition> {
    if let Some(complaint) = storable::complaint_about(document) {
        errors.add("", complaint);
        return None;
    }
    let document = Object::read(document, "", errors)?;
    document.only(KNOWN, RESERVED, errors);
    if let Some(given) = document.get("workflow_id").filter(|given| given.as_str() != Some(workflow_id)) {
        let detail = match given {
            Value::String(_) => format!("must be `{workflow_id}`, the workflow that is being defined."),
            other => format!("must be a text, not {}.", shape(other)),
        };
        errors.add("/workflow_id", detail);
    }
    let name = document.text("name", MAX_NAME_CHARS, errors).map(str::to_owned);
    let description = document.text("description", MAX_DESCRIPTION_CHARS, errors).map(str::to_owned);
    let labels = labels(&document, errors);
    let max_retries = document.whole("max_retries", 0, step::MAX_RETRIES, errors).unwrap_or(DEFAULT_MAX_RETRIES);
    let steps = steps(&document, max_retries, errors)?;
    Some(Definition { workflow_id: workflow_id.to_owned(), name, description, labels, steps })
}

fn labels(document: &Object<'_>, errors: &mut Errors) -> BTreeMap<String, String> {
    let labels = document.get("labels").and_then(|labels| Object::read(labels, "/labels", errors));
    let Some(labels) = labels else { return BTreeMap::new() };
    if labels.iter().count() > MAX_LABELS {
        errors.add("/labels", format!("has more than {MAX_LABELS} labels."));
        return BTreeMap::new();
    }
    let mut read = BTreeMap::new();
    for (key, value) in labels.iter() {
        let at = labels.pointer(key);
        if key.trim().is_empty() || key.chars().count() > MAX_NAME_CHARS {
            errors.add(&at, format!("a label's name must have 1 to {MAX_NAME_CHARS} characters."));
        }
        if let Some(value) = text(value, &at, MAX_NAME_CHARS, errors) {
            read.insert(key.clone(), value.to_owned());
        }
    }
    read
}

fn steps(document: &Object<'_>, max_retries: u32, errors: &mut Errors) -> Option<Vec<Step>> {
    let given = document.required("steps", errors)?;
    let Value::Array(given) = given else {
        errors.add("/steps", format!("must be an array, not {}.", shape(given)));
        return None;
    };
    if given.is_empty() || given.len() > MAX_STEPS {
        errors.add("/steps", format!("must have 1 to {MAX_STEPS} steps, not {}.", given.len()));
        return None;
    }
    let mut ids = BTreeSet::new();
    let mut passes = 0;
    let mut steps = Vec::with_capacity(given.len());
    for (index, value) in given.iter().enumerate() {
        let at = format!("/steps/{index}");
        let Some(step) = step::read(value, &at, max_retries, errors) else { continue };
        if !ids.insert(step.id.clone()) {
            errors.add(&format!("{at}/id"), format!("`{}` is the id of an earlier step as well.", step.id));
        }
        passes = if step.kind() == Kind::Pass { passes + 1 } else { 0 };
        if passes == MAX_PASSES_IN_A_ROW + 1 {
            errors.add(&at, format!("more than {MAX_PASSES_IN_A_ROW} `pass` steps in a row."));
        }
        steps.push(step);
    }
    Some(steps)
}
