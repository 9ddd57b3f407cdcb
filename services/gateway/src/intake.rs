//! The way into the command queue for those who come through the tenants' account.
//!
//! One instance at a time takes commands in: the server would hand one caller's messages to several by turns, and their order
//! would be lost.

use std::sync::Arc;
use std::time::Duration;

use nats::{Connection, WorkQueue};
use runtime::lease::Lease;
use runtime::retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::limits::{Limiter, limited_in_order};

/// Takes commands in until `stop`, whenever the lease is ours, and then until those it has taken are in the queue.
pub async fn run(
    door: Connection,
    queue: WorkQueue,
    limiter: Option<Arc<Limiter>>,
    mut lease: Lease,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while !stop.is_cancelled() {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = lease.begun() => term,
        };
        let turn = stop.child_token();
        let intake = limited_in_order(limiter.as_ref(), nats::intake(queue.clone()));
        let taking = match nats::serve_in_order(&door, "queue.>", intake, turn.clone()).await {
            Ok(taking) => taking,
            Err(error) => {
                tracing::warn!(%error, "the door of the queue cannot open; trying again");
                backoff.wait().await;
                continue;
            }
        };
        backoff.reset();
        tokio::select! {
            () = stop.cancelled() => {}
            () = lease.ended(&term) => {}
        }
        turn.cancel();
        let _ = taking.await;
    }
}
