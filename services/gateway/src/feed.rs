//! The live feed: each event of a tenant once more, as a message of the tenants' account, while it happens.
//!
//! A copy for whoever listens, at most once: nothing is kept, and what nobody heard is not sent again. What was missed is read
//! over HTTP, from the cursor that every message carries. One instance at a time sends it; the next one goes on with what is
//! new then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kernel::{Cursor, Position};
use metrics::counter;
use nats::{Connection, headers, subjects};
use runtime::consume::everything;
use runtime::lease::Lease;
use runtime::retry::Backoff;
use runtime::{Log, LogError, Recorded, telemetry};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::admission::PLATFORM;

/// The lease under which it is sent.
pub const LEASE: &str = "feed/live";

/// What is about our own workings and nobody's business outside.
const INTERNAL: [&str; 1] = ["commandhash"];

/// Sends until `stop`, whenever the lease is ours.
pub async fn run(log: Arc<dyn Log>, out: Connection, mut lease: Lease, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    counter!(telemetry::FEED_EVENTS_TOTAL).increment(0);
    while !stop.is_cancelled() {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = lease.begun() => term,
        };
        let mut after = None;
        while lease.lasts(&term) {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                () = lease.ended(&term) => break,
                ended = follow(&log, &out, &mut after, &mut backoff) => ended,
            };
            tracing::warn!(error = %ended, "the live feed is interrupted; it goes on where it was");
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }
}

/// Follows the log from a position, from now on if there is none yet, until a read breaks.
async fn follow(log: &Arc<dyn Log>, out: &Connection, after: &mut Option<Position>, backoff: &mut Backoff) -> LogError {
    let begun = match *after {
        Some(position) => Ok(position),
        None => log.head().await,
    };
    let mut at = match begun {
        Ok(position) => position,
        Err(error) => return error,
    };
    *after = Some(at);
    let mut commits = match everything(log, at).await {
        Ok(commits) => commits,
        Err(error) => return error,
    };
    while let Some(recorded) = commits.next().await {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => return error,
        };
        backoff.reset();
        for copy in copies(&recorded) {
            counter!(telemetry::FEED_EVENTS_TOTAL).increment(1);
            out.tell(copy.subject, &[(headers::CURSOR, &copy.cursor), CONTENT_TYPE], copy.event.into()).await;
        }
        at = recorded.position;
        *after = Some(at);
    }
    LogError { attempt: "follow the log", reason: "the read ended".to_owned() }
}

const CONTENT_TYPE: (&str, &str) = ("Content-Type", "application/cloudevents+json");

/// One event on its way out.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    subject: String,
    cursor: String,
    event: String,
}

/// A commit's events for those outside; none for what is the platform's own, or cannot be read.
fn copies(recorded: &Recorded) -> Vec<Copy> {
    let Ok(Some((stream, commit))) = recorded.history() else { return Vec::new() };
    if stream.tenant.as_str() == PLATFORM {
        return Vec::new();
    }
    // What the producer wrote stays as it is, number by number.
    let Ok(raw) = serde_json::from_slice::<Vec<BTreeMap<&str, &RawValue>>>(&recorded.payload) else {
        return Vec::new();
    };
    let events = raw.into_iter().zip(&commit.events).enumerate();
    let copy = |(index, (mut raw, event)): (usize, (BTreeMap<&str, &RawValue>, &kernel::Envelope<'_>))| {
        raw.retain(|name, _| !INTERNAL.contains(name));
        Some(Copy {
            subject: subjects::feed(&stream.tenant, &stream.category, &event.type_name),
            cursor: Cursor { position: recorded.position, index: index as u32 }.to_string(),
            event: serde_json::to_string(&raw).ok()?,
        })
    };
    events.filter_map(copy).collect()
}
