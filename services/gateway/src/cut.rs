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

async fn cut(connections: Arc<Connections>, whom: Option<PrincipalId>, stop: CancellationToken) {
    let Some(moment) = until_cut(&connections, whom.as_ref(), None, &stop).await else { return };
    counter!(telemetry::BUS_CUTS_TOTAL).increment(1);
    // Who was being let in at that moment is not among the connected yet.
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(SERVER_WAITS) => {
            until_cut(&connections, whom.as_ref(), Some(&moment), &stop).await;
        }
    }
}

async fn until_cut(
    connections: &Connections,
    whom: Option<&PrincipalId>,
    begun_by: Option<&Moment>,
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
