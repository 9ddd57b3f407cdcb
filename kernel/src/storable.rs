//! What a value from outside may be, so that what is written can always be read again.

use crate::{FieldError, Problem};
use serde_json::Value;

/// Deepest nesting of a value. Readers of JSON give up at 128 levels, and our events wrap values in a few more: what
/// was let in at 127 could never be read from the log.
pub const MAX_DEPTH: usize = 64;

/// `serde_json` takes objects that begin with such a key for something else, and what it writes begins with them.
const KEYS_OF_THE_READER: &str = "$serde_json::private::";

/// Why a value could not be read back from the log, if that is so.
pub fn complaint_about(value: &Value) -> Option<&'static str> {
    unreadable(value, MAX_DEPTH)
}

fn unreadable(value: &Value, levels: usize) -> Option<&'static str> {
    let inside = |inner: &Value| match levels.checked_sub(1) {
        Some(levels) => unreadable(inner, levels),
        None => Some("is nested deeper than 64 levels."),
    };
    match value {
        Value::Array(items) => items.iter().find_map(inside),
        Value::String(text) if text.contains('\0') => {
            Some("contains the character U+0000, which Postgres cannot store.")
        }
        Value::Object(fields) if fields.keys().any(|key| key.contains('\0')) => {
            Some("has a key with the character U+0000, which Postgres cannot store.")
        }
        Value::Object(fields) if fields.keys().any(|key| key.starts_with(KEYS_OF_THE_READER)) => {
            Some("has a key that begins with `$serde_json::private::`.")
        }
        Value::Object(fields) => fields.values().find_map(inside),
        _ => None,
    }
}

/// Takes a value from the field of a body.
///
/// # Errors
/// 413 `too_large` when it takes more than `limit_bytes` in the log, 422 `invalid` when it could not be read from there.
pub fn ensure_storable(value: &Value, field: &str, sent_bytes: usize, limit_bytes: usize) -> Result<(), Problem> {
    if !fits(value, sent_bytes, limit_bytes) {
        return Err(too_large(field, limit_bytes));
    }
    match complaint_about(value) {
        None => Ok(()),
        Some(detail) => {
            Err(Problem::invalid(vec![FieldError { pointer: format!("/{field}"), detail: detail.to_owned() }]))
        }
    }
}

/// 413 `too_large`.
pub fn too_large(what: &str, limit_bytes: usize) -> Problem {
    let detail = format!("The {what} may have {} KiB at most.", limit_bytes / 1024);
    Problem::new(413, "too_large", detail)
}

/// Whether a value takes at most `limit_bytes` in the log. It is written out only where that is in doubt: numbers such
/// as `1e15` grow, but no JSON grows more than fivefold.
pub fn fits(value: &Value, sent_bytes: usize, limit_bytes: usize) -> bool {
    sent_bytes.saturating_mul(5) <= limit_bytes || value.to_string().len() <= limit_bytes
}

/// Cuts a text to so many characters.
pub fn cut(mut text: String, max_chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
    }
    text
}

/// The rule of [`is_word`], for people.
pub const WORD: &str = "use 1 to 128 visible ASCII characters without blanks";

/// Whether a text is a word: 1 to 128 visible ASCII characters. Command ids are, and what travels along for tracing.
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
