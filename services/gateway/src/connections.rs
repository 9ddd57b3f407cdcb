//! Connections of the HTTP door: accepted up to a number, cut off when the head of a request is too long in coming, and ended in
//! order when the door closes.
//!
//! What is no HTTP at all is answered by hyper itself: a status (400, 414, 431) without a document, and the connection ends.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kernel::Problem;
use rest::Fault;
use runtime::telemetry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// What a door puts up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Longest time from the beginning of a connection, or from the answer before, until the head of a request is there.
    pub(crate) header_timeout: Duration,
    /// Most connections at once.
    pub(crate) max_connections: usize,
}

/// Connections beyond the limit that hear so at once. Whoever comes beyond these is hung up on.
const MOST_REFUSALS: usize = 64;

/// How long one of them may take to ask.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// How long nothing is accepted after the process could not: it has no file left, and trying again at once would only burn.
const PAUSE: Duration = Duration::from_millis(500);

/// Serves until `stop`. Then nobody new comes in, who is idle is hung up on, and who has asked is answered first.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(MOST_REFUSALS));
    let connections = TaskTracker::new();
    while let Some((stream, peer)) = accept(&listener, &stop).await {
        // Answers are written whole: waiting for more to send with them is of no use.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection takes no options");
        }
        let stop = stop.clone();
        if let Some(place) = Place::take(&places) {
            let (router, timeout) = (router.clone(), limits.header_timeout);
            connections.spawn(async move {
                let _place = place;
                talk(stream, peer, router, timeout, stop).await;
            });
            continue;
        }
        metrics::counter!(telemetry::HTTP_CONNECTIONS_REFUSED_TOTAL).increment(1);
        if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
            connections.spawn(async move {
                let _place = place;
                talk(stream, peer, Router::new().fallback(full), REFUSAL_TIME, stop).await;
            });
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection; `None` when the door closes.
async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return None,
        };
        let error = match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        // They have hung up before we came to it.
        let theirs =
            [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
        if !theirs.contains(&error.kind()) {
            tracing::error!(%error, "no connection can be accepted; trying again");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return None,
            }
        }
    }
}

/// One connection, to its end.
async fn talk(stream: TcpStream, peer: SocketAddr, router: Router, header_timeout: Duration, stop: CancellationToken) {
    let service = router.map_request(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection broke");
    }
}

/// The answer of a door that has no place left.
async fn full() -> Response {
    let problem = Problem::new(503, "too_many_connections", "There are as many connections as there may be.");
    let closing = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (closing, Fault(problem.retry_after(1_000))).into_response()
}

/// One of the places that a door has; free again when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    open: metrics::Gauge,
}

impl Place {
    fn take(places: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        let open = metrics::gauge!(telemetry::HTTP_CONNECTIONS);
        open.increment(1.0);
        Some(Self { _permit: permit, open })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}
