//! An accepted command as a response.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use runtime::Answer;
use serde_json::Value;

const REPEATED: HeaderName = HeaderName::from_static("airstream-repeated");

/// The answer's document with a few more fields. Whether it repeats an earlier answer stands in a header: the document
/// of a repeated command is equal to the first.
pub fn answer(status: StatusCode, answer: &Answer, more: &[(&str, &str)]) -> Response {
    let mut document = serde_json::to_value(answer).unwrap_or_default();
    if let Value::Object(fields) = &mut document {
        fields.extend(more.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
    }
    let mut response = (status, Json(document)).into_response();
    if answer.repeated {
        response.headers_mut().insert(REPEATED, HeaderValue::from_static("true"));
    }
    response
}
