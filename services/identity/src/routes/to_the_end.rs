//! What is begun comes to its end, also when nobody waits for the answer any more.
//!
//! A change of an account is several steps: a row, an event, another row, a mail. A handler is dropped between any two of them
//! when its caller hangs up or the time for an answer is over; what that leaves half done only the same request could bring to
//! an end, and it may never come again. So whatever changes something runs on its own, and its caller waits for it.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kernel::Problem;
use rest::{Fault, Payload};
use tracing::Instrument as _;

/// The layer: of everything that is not only asked.
pub(super) async fn changes(request: Request, next: Next) -> Response {
    match request.method().is_safe() {
        true => next.run(request).await,
        false => everything(request, next).await,
    }
}

/// The same for routes that change something though they are asked only: where providers send browsers back to.
pub(super) async fn everything(request: Request, next: Next) -> Response {
    to_the_end(request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn to_the_end(request: Request, next: Next) -> Result<Response, Fault> {
    // Whoever hangs up before they have said everything has asked for nothing.
    let (parts, body) = request.into_parts();
    let body = Payload::whole(Request::from_parts(parts.clone(), body)).await?;
    let request = Request::from_parts(parts, Body::from(body));
    match tokio::spawn(next.run(request).in_current_span()).await {
        Ok(response) => Ok(response),
        // As if it had panicked here: whoever takes panics for defects is further out.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Problem::unavailable("The server is stopping.", 1_000).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::http::Method;
    use axum::middleware::from_fn;
    use axum::routing::any;
    use tokio::sync::Notify;
    use tower::ServiceExt as _;

    use super::*;

    fn request(method: Method) -> Request {
        Request::builder().method(method).uri("/").body(Body::from("{}")).expect("a request")
    }

    /// A route of two steps. Whether it has come to its second one when nobody waits any more after the first.
    async fn finishes(method: Method, every_method: bool) -> bool {
        let (first, on, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let steps = (Arc::clone(&first), Arc::clone(&on), Arc::clone(&second));
        let route = any(move || {
            let (first, on, second) = steps.clone();
            async move {
                first.notify_one();
                on.notified().await;
                second.notify_one();
            }
        });
        let router = Router::new().route("/", route);
        let router = match every_method {
            true => router.route_layer(from_fn(everything)),
            false => router.route_layer(from_fn(changes)),
        };
        let mut asked = Box::pin(router.oneshot(request(method)));
        tokio::select! {
            _ = &mut asked => panic!("answered after the first step"),
            () = first.notified() => drop(asked),
        }
        on.notify_one();
        // Time is stopped: it goes on when nobody has anything left to do.
        tokio::time::timeout(Duration::from_secs(1), second.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_something_ends_though_nobody_waits() {
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            assert!(finishes(method.clone(), false).await, "{method}");
        }
        assert!(!finishes(Method::GET, false).await, "who only asks and hangs up is not worked for");
        assert!(finishes(Method::GET, true).await);
    }

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_is_one_for_the_caller() {
        async fn broken() {
            panic!("a defect");
        }
        let router = Router::new().route("/", any(broken)).route_layer(from_fn(changes));
        let _ = router.oneshot(request(Method::POST)).await;
    }
}
