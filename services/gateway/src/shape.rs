//! How large the head of a request may be. The server below reads more than that, so that whoever sends too much hears why.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use kernel::Problem;
use rest::Fault;

/// Longest path and query, in bytes: cursors, positions and filters are short.
const MOST_OF_A_TARGET: usize = 8 * 1024;

/// Names and values of all headers, in bytes. Tokens are the largest of them, at some 1 KiB.
const MOST_OF_HEADERS: usize = 32 * 1024;

/// The layer.
pub(crate) async fn within_bounds(request: Request, next: Next) -> Result<Response, Fault> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MOST_OF_A_TARGET {
        let detail = format!("The path and the query have {target} bytes; {MOST_OF_A_TARGET} are the most.");
        return Err(Problem::new(414, "uri_too_long", detail).into());
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > MOST_OF_HEADERS {
        let detail = format!("The headers have {headers} bytes; {MOST_OF_HEADERS} are the most.");
        return Err(Problem::new(431, "headers_too_large", detail).into());
    }
    Ok(next.run(request).await)
}
