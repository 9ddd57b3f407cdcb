//! What a consumer tells about itself: how far it is, how late, and that it is alive.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kernel::{Position, Timestamp};
use metrics::{Counter, Gauge, counter, gauge};

use crate::{clock, telemetry};

/// A consumer's metrics.
#[derive(Clone)]
pub(super) struct Gauges {
    head: Gauge,
    checkpoint: Gauge,
    lag_events: Gauge,
    lag_seconds: Gauge,
    heartbeat: Gauge,
    parked: Gauge,
    foreign: Counter,
    /// When the oldest commit that is known to wait was written, in microseconds; 0 when none is.
    oldest: Arc<AtomicI64>,
}

impl Gauges {
    pub(super) fn of(consumer: &str) -> Self {
        let labels = [("consumer", consumer.to_owned())];
        let gauges = Self {
            head: gauge!(telemetry::CONSUMER_HEAD_SEQUENCE, &labels),
            checkpoint: gauge!(telemetry::CONSUMER_CHECKPOINT_SEQUENCE, &labels),
            lag_events: gauge!(telemetry::CONSUMER_LAG_EVENTS, &labels),
            lag_seconds: gauge!(telemetry::CONSUMER_LAG_SECONDS, &labels),
            heartbeat: gauge!(telemetry::CONSUMER_HEARTBEAT_TIMESTAMP_SECONDS, &labels),
            parked: gauge!(telemetry::CONSUMER_PARKED_STREAMS, &labels),
            foreign: counter!(telemetry::FOREIGN_MESSAGES_TOTAL, &labels),
            oldest: Arc::default(),
        };
        gauges.foreign.increment(0);
        gauges
    }

    /// The loop has turned.
    pub(super) fn turned(&self, parked: usize) {
        self.heartbeat.set(clock::now().timestamp_micros() as f64 / 1e6);
        self.parked.set(parked as f64);
    }

    /// Another instance does the work, and tells how it goes. Its heartbeat, too: were this one to show its own, nobody
    /// would notice that no instance has the lease.
    pub(super) fn standing_by(&self) {
        self.parked.set(0.0);
        self.lag_events.set(0.0);
        self.waiting_since(None);
    }

    /// It has come to a position, with so many commits after it; `handled` is when the one there was written.
    pub(super) fn came_to(&self, checkpoint: Position, remaining: u64, handled: Option<Timestamp>, parked: usize) {
        self.checkpoint.set(checkpoint.sequence() as f64);
        self.head.set((checkpoint.sequence() + remaining) as f64);
        self.lag_events.set(remaining as f64);
        self.parked.set(parked as f64);
        // What waits has not been read yet; it is a little younger than what has just been handled.
        self.waiting_since(handled.filter(|_| remaining > 0));
    }

    pub(super) fn foreign(&self) {
        self.foreign.increment(1);
    }

    /// Notes since when something waits, and tells its age.
    pub(super) fn waiting_since(&self, oldest: Option<Timestamp>) {
        self.oldest.store(oldest.map_or(0, |at| at.timestamp_micros()), Ordering::Relaxed);
        self.grow_older();
    }

    /// Tells the age of what waits once more: nothing else tells it while nothing goes on.
    pub(super) fn grow_older(&self) {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let age = if oldest == 0 { 0 } else { clock::now().timestamp_micros() - oldest };
        // The log's clock may be ahead of ours.
        self.lag_seconds.set(age.max(0) as f64 / 1e6);
    }

    /// Waits for work on commits, the oldest of which was written at that time.
    pub(super) async fn during<T>(&self, oldest: Timestamp, every: Duration, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(every, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.waiting_since(Some(oldest)),
            }
        }
    }
}
