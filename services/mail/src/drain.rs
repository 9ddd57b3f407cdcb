//! Empties the outbox, one instance at a time.
//!
//! A mail is claimed for a while, handed over, and settled. Whoever dies in between leaves a claim that runs out, and the mail
//! goes out once more: better two than none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use metrics::{counter, gauge};
use projections::Failure;
use projections::mail::{Claimed, Outbox};
use runtime::lease::{Lease, Term};
use runtime::retry::Backoff;
use runtime::telemetry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::smtp::ONE_MAIL;
use crate::{Carrier, Unsent};

/// The lease under which the outbox is emptied.
pub const LEASE: &str = "mail/outbox";

/// Mails claimed at once.
const BATCH: usize = 16;
/// Mails handed over at once.
const AT_ONCE: usize = 4;
/// How long a claim lasts: longer than a batch can take, however slow the server is.
const CLAIM: Duration = Duration::from_secs(300);
const _: () = assert!(ONE_MAIL.as_secs() * (BATCH / AT_ONCE) as u64 + 30 < CLAIM.as_secs());

/// How long a mail put elsewhere may go unnoticed. One put in this process is noticed at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the waiting are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How often old rows are swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// The first pause before another try; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest pause before another try.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// How long a mail is tried. What it says is of no use after that.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Empties the outbox until `stop`, whenever the lease is ours.
pub async fn run(outbox: Outbox, carrier: Arc<dyn Carrier>, mut lease: Lease, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = lease.begun() => term,
        };
        let mut drain = Drain { outbox: &outbox, carrier: &*carrier, lease: lease.clone(), term, stop: &stop };
        drain.while_ours().await;
        carrier.rest().await;
        // Whoever goes on tells how things stand.
        gauge!(telemetry::MAIL_WAITING_SECONDS).set(0.0);
    }
}

struct Drain<'a> {
    outbox: &'a Outbox,
    carrier: &'a dyn Carrier,
    lease: Lease,
    term: Term,
    stop: &'a CancellationToken,
}

impl Drain<'_> {
    async fn while_ours(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let (mut count_at, mut sweep_at) = (Instant::now(), Instant::now());
        while self.goes_on() {
            let pause = match self.outbox.claim(BATCH as i64, CLAIM).await {
                Ok(mails) if mails.is_empty() => {
                    backoff.reset();
                    self.carrier.rest().await;
                    LOOK_EVERY
                }
                Ok(mails) => {
                    self.send(mails).await;
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the outbox cannot be read; will try again"
                    );
                    backoff.next_delay()
                }
            };
            if count_at <= Instant::now() {
                count_at = Instant::now() + COUNT_EVERY;
                if let Ok(waiting) = self.outbox.waiting().await {
                    gauge!(telemetry::MAIL_WAITING_SECONDS).set(waiting.oldest.as_secs_f64());
                }
            }
            if sweep_at <= Instant::now() {
                sweep_at = Instant::now() + SWEEP_EVERY;
                let _ = self.outbox.sweep().await;
            }
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.lease.ended(&self.term) => {}
                () = self.outbox.next_put() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.is_cancelled() && self.lease.lasts(&self.term)
    }

    async fn send(&self, mails: Vec<Claimed>) {
        let away = OnceLock::new();
        let away = &away;
        let each = stream::iter(mails).for_each_concurrent(AT_ONCE, |mail| async move {
            let outcome = match away.get() {
                // The server will not have come back since the last one.
                Some(unsent) => Err(Unsent::clone(unsent)),
                None if !self.goes_on() => Err(Unsent::Later("the sender stopped".to_owned())),
                None => self.carrier.carry(&mail).await,
            };
            if let Err(unsent @ Unsent::Away(_)) = &outcome {
                let _ = away.set(unsent.clone());
            }
            self.settle(&mail, outcome).await;
        });
        each.await;
        if let Some(unsent) = away.get() {
            tracing::warn!(reason = unsent.reason(), "the mail server takes no mails now; they wait");
        }
    }

    async fn settle(&self, mail: &Claimed, outcome: Result<(), Unsent>) {
        let Claimed { id, kind, tries, .. } = mail;
        let count = |outcome: &'static str| {
            counter!(telemetry::MAILS_TOTAL, "kind" => kind.clone(), "outcome" => outcome).increment(1);
        };
        let unsent = match outcome {
            Ok(()) => {
                count("sent");
                tracing::debug!(id, kind, tries, "a mail was sent");
                return self.persist(|| self.outbox.sent(id)).await;
            }
            Err(unsent) => unsent,
        };
        let reason = unsent.reason();
        if matches!(unsent, Unsent::Never(_)) || mail.age >= GIVE_UP_AFTER {
            count("given_up");
            tracing::warn!(id, kind, tries, reason, "a mail was given up");
            return self.persist(|| self.outbox.given_up(id, *tries, &reason)).await;
        }
        count("retry");
        tracing::debug!(id, kind, tries, reason, "a mail was not taken; it will be tried again");
        let wait = retry_after(*tries);
        self.persist(|| self.outbox.failed(id, *tries, wait, &reason)).await;
    }

    /// Writes down what became of a mail, while its claim lasts: what is not written down is sent again.
    async fn persist<F: Future<Output = Result<(), Failure>>>(&self, write: impl Fn() -> F) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(error) = write().await {
            if self.stop.is_cancelled() || Instant::now() >= until {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what became of a mail is not known; it will be tried again"
                );
                return;
            }
            backoff.wait().await;
        }
    }
}

/// How long after this try the next one is due.
fn retry_after(tries: i32) -> Duration {
    let doublings = tries.clamp(1, 16).unsigned_abs() - 1;
    FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_short_enough_for_a_link_that_ages() {
        assert_eq!([1, 2, 3].map(|tries| retry_after(tries).as_secs()), [5, 10, 20]);
        assert_eq!([20, i32::MAX].map(retry_after), [LONGEST_RETRY; 2]);
    }
}
