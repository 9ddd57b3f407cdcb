//! A fold as a response: a line of JSON per piece of news, and what it came to in the last one.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt};
use kernel::Problem;
use projections::Progress;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::problem;
use crate::{Known, Operations};

/// When there is no news, the last is repeated: making an index or comparing may take long, and whoever stands between
/// must not think that the connection is dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

pub(super) fn response(
    operations: Arc<dyn Operations>,
    known: Known,
    switch: bool,
    stop: CancellationToken,
) -> Response {
    let (lines, body) = mpsc::channel::<Value>(16);
    tokio::spawn(async move {
        tokio::select! {
            last = fold(&*operations, &known, switch, &lines) => {
                let _ = lines.send(last).await;
            }
            // Nobody is waiting for it any more. What has been made is dropped with the fold.
            () = lines.closed() => tracing::info!(projection = known.consumer, "a fold was given up by its caller"),
            () = stop.cancelled() => {
                let problem = Problem::unavailable("The server is stopping; nothing was switched.", 1_000);
                let _ = lines.try_send(json!({ "problem": problem }));
            }
        }
    });
    let lines = ReceiverStream::new(body).map(|line| Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn fold(operations: &dyn Operations, known: &Known, switch: bool, lines: &mpsc::Sender<Value>) -> Value {
    let (progress, mut news) = mpsc::channel(16);
    let folding = AssertUnwindSafe(operations.fold(known, switch, progress)).catch_unwind();
    let telling = async {
        let mut last = json!({ "phase": "fold", "done": 0, "total": 0 });
        loop {
            match tokio::time::timeout(SIGN_OF_LIFE, news.recv()).await {
                Ok(Some(news)) => last = line(&news),
                Ok(None) => return,
                Err(_) => {}
            }
            let _ = lines.send(last.clone()).await;
        }
    };
    let (folded, ()) = tokio::join!(folding, telling);
    match folded {
        Ok(Ok(fold)) => json!({ "result": fold }),
        Ok(Err(error)) => json!({ "problem": problem(&error) }),
        Err(_) => {
            tracing::error!(projection = known.consumer, "a fold panicked");
            json!({ "problem": Problem::new(500, "defect", "The fold broke; it has been logged.") })
        }
    }
}

fn line(news: &Progress) -> Value {
    json!({
        "phase": news.phase, "done": news.done, "total": news.total,
        "per_second": news.per_second.round(), "eta_seconds": news.eta_seconds,
    })
}
