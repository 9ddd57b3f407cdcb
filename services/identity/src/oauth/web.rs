//! Asking providers: bounded in time and size, and never led elsewhere.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{CACHE_CONTROL, HeaderMap};
use serde::de::DeserializeOwned;

use super::Unvouched;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer. Google's keys are 2 KiB, a GitHub profile 1 KiB.
const MOST_BYTES: usize = 256 * 1024;

/// The client that all questions go through.
#[derive(Clone)]
pub(super) struct Web(reqwest::Client);

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    /// How long it may be kept.
    pub(super) max_age: Option<Duration>,
    body: Vec<u8>,
}

impl Web {
    pub(super) fn new() -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("airstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            // A code, a secret or a token would go along.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Ok(Self(client.map_err(|error| format!("no HTTP client can be made: {error}"))?))
    }

    pub(super) fn get(&self, url: &str) -> RequestBuilder {
        self.0.get(url).header("accept", "application/json")
    }

    /// Posts a form, and asks for JSON: GitHub answers with a form otherwise.
    pub(super) fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let form = ("content-type", "application/x-www-form-urlencoded");
        self.0.post(url).header("accept", "application/json").header(form.0, form.1).body(body)
    }
}

/// Sends a question. `what` says what was asked, for the log; the URL and the answer may hold secrets.
pub(super) async fn ask(what: &str, question: RequestBuilder) -> Result<Reply, Unvouched> {
    let away = |error: reqwest::Error| Unvouched::Away(format!("{what}: {}", root(&error)));
    let mut response = question.send().await.map_err(away)?;
    let status = response.status().as_u16();
    let max_age = max_age(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(Unvouched::Away(format!("{what}: the answer is larger than {MOST_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    match status {
        429 | 500.. => Err(Unvouched::Away(format!("{what}: it answered {status}"))),
        // Where it leads nobody knows.
        300..400 => Err(Unvouched::Misconfigured(format!("{what}: it answered {status}, and nobody follows"))),
        _ => Ok(Reply { status, max_age, body }),
    }
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads JSON; `None`: it is none, or other than expected.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The innermost reason: the outer ones repeat the URL.
fn root(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_may_be_kept_is_read_from_its_header() {
        let of = |text: &'static str| {
            let value = reqwest::header::HeaderValue::from_static(text);
            max_age(&HeaderMap::from_iter([(CACHE_CONTROL, value)]))
        };
        assert_eq!(of("public, max-age=19541, must-revalidate, no-transform"), Some(Duration::from_secs(19_541)));
        assert_eq!((of("no-cache"), of("max-age=soon"), max_age(&HeaderMap::new())), (None, None, None));
    }
}
