//! `/openapi.json`, and `/docs`: a viewer for it that is part of this program and fetches nothing from anywhere.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use kernel::Problem;
use rest::Fault;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::guard::Needs;

/// Its own scripts and styles, and questions to this API; nothing else, from nowhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// Neither changes while the program runs; a newer program is asked soon enough.
const CACHED: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=300")];

/// Routes that are not part of the description, and what they ask for.
pub(crate) const OPEN: [(&str, Needs); 4] = [
    ("/openapi.json", Needs::Nothing),
    ("/docs", Needs::Nothing),
    ("/docs/", Needs::Nothing),
    ("/docs/{*file}", Needs::Nothing),
];

/// The routes. The description is written out once.
pub(crate) fn router(description: &OpenApi) -> Router {
    let mut document = serde_json::to_value(description).unwrap_or_default();
    crate::openapi::with_examples(&mut document);
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let json = [(header::CONTENT_TYPE, "application/json")];
    let config = Arc::new(Config::from("/openapi.json").try_it_out_enabled(true).persist_authorization(false));
    let index = Arc::clone(&config);
    Router::new()
        .route("/openapi.json", get(move || async move { (json, CACHED, document) }))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(move || async move { file("", index) }))
        .route("/docs/{*file}", get(move |Path(path): Path<String>| async move { file(&path, config) }))
}

fn file(path: &str, config: Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(path, config) {
        Ok(Some(file)) => {
            let kind = [(header::CONTENT_TYPE, file.content_type)];
            let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
            (kind, CACHED, policy, file.bytes.into_owned()).into_response()
        }
        Ok(None) => Fault(Problem::new(404, "unknown_route", "The viewer has no such file.")).into_response(),
        Err(error) => {
            tracing::error!(error, "the viewer of the description cannot be configured");
            Fault(Problem::new(500, "defect", "Something of ours broke; it has been logged.")).into_response()
        }
    }
}
