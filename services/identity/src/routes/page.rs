//! `/device`: a page on which somebody types the code that a device shows.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::Accounts;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(device))
}

const PAGE: &str = include_str!("device.html");
/// Nothing but this page, its own script and our own door; and nobody frames it (RFC 8628, 5.4).
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page on which a device is let in
///
/// For people.
#[utoipa::path(get, path = "/device", tag = "auth", security(()),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)))]
async fn device() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE)).into_response()
}
