//! Reading JSON by hand, so that every complaint says where (JSON Pointer, RFC 6901) and all are made at once.

use kernel::FieldError;
use serde_json::{Map, Value};

use crate::seconds;

/// How many complaints are kept: a document of commas must not become a megabyte of answers.
const MAX_ERRORS: usize = 100;

/// The complaints so far.
#[derive(Debug, Default)]
pub(super) struct Errors {
    kept: Vec<FieldError>,
    dropped: usize,
}

impl Errors {
    /// One more.
    pub(super) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        if self.kept.len() < MAX_ERRORS {
            self.kept.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
        } else {
            self.dropped += 1;
        }
    }

    /// What was found, if there was anything to complain about.
    pub(super) fn into_result<T>(mut self, found: Option<T>) -> Result<T, Vec<FieldError>> {
        if self.dropped > 0 {
            let detail = format!("and {} more errors.", self.dropped);
            self.kept.push(FieldError { pointer: String::new(), detail });
        }
        match found {
            Some(found) if self.kept.is_empty() => Ok(found),
            _ => Err(self.kept),
        }
    }
}

/// A JSON object and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Object<'a> {
    pub(super) at: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Takes a value that must be an object.
    pub(super) fn read(value: &'a Value, at: &str, errors: &mut Errors) -> Option<Self> {
        let Value::Object(fields) = value else {
            errors.add(at, format!("must be an object, not {}.", shape(value)));
            return None;
        };
        Some(Self { at: at.to_owned(), fields })
    }

    /// Complains about every field that is not known, with a hint where one comes close.
    pub(super) fn only(&self, known: &[&str], reserved: &[&str], errors: &mut Errors) {
        for key in self.fields.keys().filter(|key| !known.contains(&key.as_str())) {
            let at = self.pointer(key);
            if reserved.contains(&key.as_str()) {
                errors.add(&at, format!("`{key}` is not supported yet."));
                continue;
            }
            match known.iter().find(|name| is_close(key, name)) {
                Some(name) => errors.add(&at, format!("is not a known field; did you mean `{name}`?")),
                None => errors.add(&at, format!("is not a known field; known are {}.", known.join(", "))),
            }
        }
    }

    /// Where a field stands. Very long keys are cut: the pointer is for people then.
    pub(super) fn pointer(&self, key: &str) -> String {
        let key: String = key.chars().take(100).collect();
        format!("{}/{}", self.at, key.replace('~', "~0").replace('/', "~1"))
    }

    /// A field, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key)
    }

    /// Every field.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.fields.iter()
    }

    /// A field that must be there.
    pub(super) fn required(&self, key: &str, errors: &mut Errors) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            errors.add(&self.at, format!("`{key}` is missing."));
        }
        value
    }

    /// An optional text of 1 to `max_chars` characters.
    pub(super) fn text(&self, key: &str, max_chars: usize, errors: &mut Errors) -> Option<&'a str> {
        text(self.get(key)?, &self.pointer(key), max_chars, errors)
    }

    /// An optional whole number between two limits.
    pub(super) fn whole(&self, key: &str, min: u32, max: u32, errors: &mut Errors) -> Option<u32> {
        let number = self.get(key)?.as_u64().and_then(|number| u32::try_from(number).ok());
        let fits = number.filter(|number| (min..=max).contains(number));
        if fits.is_none() {
            errors.add(&self.pointer(key), format!("must be a whole number from {min} to {max}."));
        }
        fits
    }

    /// An optional number of seconds, in milliseconds.
    pub(super) fn seconds(&self, key: &str, min_ms: u64, max_ms: u64, errors: &mut Errors) -> Option<u64> {
        self::seconds(self.get(key)?, &self.pointer(key), min_ms, max_ms, errors)
    }
}

/// A text of 1 to `max_chars` characters.
pub(super) fn text<'a>(value: &'a Value, at: &str, max_chars: usize, errors: &mut Errors) -> Option<&'a str> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() && text.chars().count() <= max_chars => Some(text),
        Some(_) => {
            errors.add(at, format!("must have 1 to {max_chars} characters."));
            None
        }
        None => {
            errors.add(at, format!("must be a text, not {}.", shape(value)));
            None
        }
    }
}

/// A number of seconds, in milliseconds.
pub(super) fn seconds(value: &Value, at: &str, min_ms: u64, max_ms: u64, errors: &mut Errors) -> Option<u64> {
    let ms = value.as_f64().and_then(|number| seconds::to_ms(number, max_ms)).filter(|ms| *ms >= min_ms);
    if ms.is_none() {
        let (min, max) = (min_ms as f64 / 1000.0, max_ms / 1000);
        errors.add(at, format!("must be a number of seconds from {min} to {max}."));
    }
    ms
}

/// Whether a text can be part of a subject, or of an id.
pub(super) fn is_token(text: &str, max_bytes: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(allowed)
}

/// The shape of a value, in words.
pub(super) fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// At most two slips of the keyboard apart (one for short words). Levenshtein's distance.
fn is_close(written: &str, meant: &str) -> bool {
    if written.len() > 32 {
        return false;
    }
    let written: Vec<char> = written.to_lowercase().chars().collect();
    let meant: Vec<char> = meant.chars().collect();
    let mut row: Vec<usize> = (0..=meant.len()).collect();
    for (i, left) in written.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in meant.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[meant.len()] <= if meant.len() < 5 { 1 } else { 2 }
}
