//! What browsers are told: who may read answers (CORS), and what they must not make of them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::limits::{RATELIMIT, RATELIMIT_POLICY};

/// Where pages may come from that use the API.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// Origins such as `https://app.example.org`, or `*` for all. Empty: pages of other origins cannot use the API.
    pub origins: Vec<String>,
    /// For how long browsers shall come back by HTTPS only; zero: it is not said. Whoever serves behind HTTPS says it.
    pub https_only: Duration,
}

/// How long a browser may go by one preflight.
const PREFLIGHT_LASTS: Duration = Duration::from_secs(600);

impl Browsers {
    /// The layer that answers preflights, and lets scripts see the headers that mean something. Credentials are tokens that a
    /// script sends itself: there are no cookies, so none are allowed.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        let origins = match self.origins.as_slice() {
            [] => return None,
            origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
            origins => AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok())),
        };
        let named = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(named(&[
                "accept",
                "airstream-command-id",
                "airstream-correlation-id",
                "authorization",
                "content-type",
                "idempotency-key",
                "last-event-id",
                "traceparent",
                "x-request-id",
            ]))
            .expose_headers(named(&[
                "airstream-repeated",
                "location",
                RATELIMIT,
                RATELIMIT_POLICY,
                "retry-after",
                "traceresponse",
                "www-authenticate",
                "x-request-id",
            ]))
            .max_age(PREFLIGHT_LASTS);
        Some(cors)
    }
}

/// An API serves no pages: nothing of an answer is to be run, framed or guessed at.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The layer: what every answer carries. A route may say something else about itself, except that what a token was needed for
/// is never kept by anybody on the way.
pub(crate) async fn guarded(State(browsers): State<Arc<Browsers>>, request: Request, next: Next) -> Response {
    let with_token = request.headers().contains_key(header::AUTHORIZATION);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    if with_token {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
    } else {
        headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    }
    let seconds = browsers.https_only.as_secs();
    if seconds > 0
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}; includeSubDomains"))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}
