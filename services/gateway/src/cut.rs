//! Who may do less than before is cut off from the bus, and comes in again as what it is now.

use std::sync::Arc;
use std::time::Duration;

use kernel::PrincipalId;
use metrics::counter;
use nats::{Connections, Moment, SERVER_WAITS};
use rest::Access;
use runtime::retry::Backoff;
use runtime::telemetry;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cuts until `stop`. Every instance does: one that has gone cuts nobody, and a connection is ended once.
pub async fn run(connections: Connections, access: Arc<dyn Access>, stop: CancellationToken) {
    let connections = Arc::new(connections);
    let tasks = TaskTracker::new();
    let mut lessened = access.lessened();
    counter!(telemetry::BUS_CUTS_TOTAL).increment(0);
    loop {
        let whom = tokio::select! {
            () = stop.cancelled() => break,
            heard = lessened.recv() => match heard {
                Ok(principal) => Some(principal),
                // Somebody was missed, and nobody knows who.
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => break,
            },
        };
        tasks.spawn(cut(Arc::clone(&connections), whom, stop.clone()));
    }
    tasks.close();
    tasks.wait().await;
}

/// When it is looked again after a cut: who was being let in at that moment was not among the connected yet, and a server
/// that was silent at first may come back with its connections.
const AGAIN: [Duration; 4] = [SERVER_WAITS, Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];

async fn cut(connections: Arc<Connections>, whom: Option<PrincipalId>, stop: CancellationToken) {
    counter!(telemetry::BUS_CUTS_TOTAL).increment(1);
    let mut moment = Moment::new();
    for pause in std::iter::once(Duration::ZERO).chain(AGAIN) {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match until_cut(&connections, whom.as_ref(), &moment, &stop).await {
            Some(seen) => moment = seen,
            None => return,
        }
    }
}

async fn until_cut(
    connections: &Connections,
    whom: Option<&PrincipalId>,
    begun_by: &Moment,
    stop: &CancellationToken,
) -> Option<Moment> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match connections.cut(whom.map(PrincipalId::as_str), begun_by).await {
            Ok(moment) => return Some(moment),
            Err(error) => tracing::warn!(%error, "who may do less than before is still connected; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = backoff.wait() => {}
        }
    }
}
