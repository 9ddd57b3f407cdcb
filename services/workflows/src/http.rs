//! The request of an `http` step: one try, with a deadline and a cap on what comes back.

use std::time::Duration;

use events::workflow::{Http, Method};
use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::{Value, json};

use crate::reach::{Reach, Refused};
use crate::run::{MAX_OUTPUT_BYTES, Work};

/// What a try came to.
pub(crate) enum Outcome {
    /// A status below 400.
    Answered { output: Value, status: u16 },
    /// Anything else.
    Failed(Failure),
}

/// An error as `fail-step` takes it.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
    pub(crate) no_effect: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_seconds: Option<f64>,
}

fn failed(kind: &str, message: String, retryable: bool) -> Outcome {
    let kind = kind.to_owned();
    Outcome::Failed(Failure { kind, message, retryable, no_effect: false, retry_after_seconds: None })
}

pub(crate) struct Client {
    client: reqwest::Client,
    reach: Reach,
}

impl Client {
    pub(crate) fn new(reach: Reach) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("airstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // A redirect could lead a step's secrets elsewhere; the definition names the target.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names itself, and reach what we do not.
            .no_proxy()
            .dns_resolver(reach.clone())
            .build()?;
        Ok(Self { client, reach })
    }

    /// Sends it. The key is the same for every attempt of the step, so a receiver that knows the header acts once.
    pub(crate) async fn send(&self, request: &Http, work: &Work, key: &str, within: Duration) -> Outcome {
        match tokio::time::timeout(within, self.exchange(request, work, key)).await {
            Ok(outcome) => outcome,
            Err(_) => failed("timeout", format!("no answer within {} ms", request.timeout_ms), true),
        }
    }

    async fn exchange(&self, request: &Http, work: &Work, key: &str) -> Outcome {
        if let Err(refused) = self.reach.check(&request.url) {
            return outside(&refused);
        }
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Head => reqwest::Method::HEAD,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut headers = HeaderMap::new();
        if let Ok(key) = HeaderValue::from_str(key) {
            headers.insert("idempotency-key", key);
        }
        if let Some(Ok(context)) = runtime::trace::current().map(HeaderValue::try_from) {
            headers.insert("traceparent", context);
        }
        for (name, value) in &request.headers {
            // Checked when the workflow was defined.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        let body = match &request.body {
            None if matches!(request.method, Method::Post | Method::Put | Method::Patch) => {
                Some(json!({ "input": work.input, "steps": work.outputs }))
            }
            other => other.clone(),
        };
        let mut builder = self.client.request(method, &request.url);
        if let Some(body) = body {
            let text = match body {
                Value::String(text) => text,
                other => {
                    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                    other.to_string()
                }
            };
            builder = builder.body(text);
        }
        match builder.headers(headers).send().await {
            Ok(response) => read(response, request.max_response_bytes).await,
            Err(error) => unanswered(&error),
        }
    }
}

fn failure(kind: &str, message: String) -> Failure {
    Failure { kind: kind.to_owned(), message, retryable: true, no_effect: false, retry_after_seconds: None }
}

fn unanswered(error: &reqwest::Error) -> Outcome {
    if let Some(refused) = refusal(error) {
        return outside(refused);
    }
    match error.is_connect() {
        true => {
            let message = format!("could not connect: {}", root(error));
            Outcome::Failed(Failure { no_effect: true, ..failure("connect", message) })
        }
        false => failed("request", format!("the request failed: {}", root(error)), true),
    }
}

/// Nothing was sent, and asking again gets the same answer.
fn outside(refused: &Refused) -> Outcome {
    let error = failure("address_refused", refused.to_string());
    Outcome::Failed(Failure { retryable: false, no_effect: true, ..error })
}

fn refusal(error: &reqwest::Error) -> Option<&Refused> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |reason| reason.source()).find_map(|reason| reason.downcast_ref())
}

/// The innermost reason: the outer ones repeat the URL, which may carry a secret.
fn root(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// Bytes as text that can be stored: what is not UTF-8, and the one character that Postgres refuses, is replaced.
fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

async fn read(response: reqwest::Response, max_bytes: u32) -> Outcome {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return failed("response", format!("the answer broke off: {}", root(&error)), true),
        }
        if bytes.len() > max_bytes as usize {
            return failed("response_too_large", format!("the answer has more than {max_bytes} bytes"), false);
        }
    }
    // Redirects are not followed, so one is not an answer either: the definition names the wrong place.
    if status >= 300 {
        let start: String = readable(&bytes).chars().take(300).collect();
        // Asking again helps against overload and breakdown, not against a request that is wrong.
        let retryable = status >= 500 || matches!(status, 408 | 425 | 429);
        let mut error = failure(&format!("http_{status}"), format!("answered {status}: {start}"));
        error.retryable = retryable;
        error.retry_after_seconds = retry_after;
        return Outcome::Failed(error);
    }
    let body = match serde_json::from_slice::<Value>(&bytes) {
        Ok(json) if kind.as_deref().is_some_and(|kind| kind.contains("json")) => json,
        _ => Value::String(readable(&bytes)),
    };
    if let Some(complaint) = kernel::storable::complaint_about(&body) {
        return failed("response_unusable", format!("the answer {complaint}"), false);
    }
    let output = json!({ "status": status, "content_type": kind, "body": body });
    if output.to_string().len() > MAX_OUTPUT_BYTES {
        let message = format!("the answer has {} bytes; a step may keep {MAX_OUTPUT_BYTES}", bytes.len());
        return failed("response_too_large", message, false);
    }
    Outcome::Answered { output, status }
}
