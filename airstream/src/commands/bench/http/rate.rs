//! What it costs to decide whether a request is one too many, out of memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use gateway::limits::{Class, Limiter, MemoryBudgets, PerClass, Rate, Rates, Who};
use kernel::PrincipalId;
use runtime::clock;
use tokio_util::sync::CancellationToken;

use super::super::Common;
use super::super::report::{Measured, Reach};
use super::super::rounds::{self, Samples};
use crate::output::Console;

/// Callers in turn.
const CALLERS: usize = 1_000;
/// Decisions between two looks at the clock.
const MANY: usize = 100_000;

pub(super) async fn measure(console: &Console, common: &Common) -> anyhow::Result<Measured> {
    let wide = Some(Rate { requests: 100_000_000, seconds: 60 });
    let each = PerClass { auth: wide, read: wide, write: wide };
    let rates = Rates { address: each, user: each, key: each, tenant: each };
    let stop = CancellationToken::new();
    let limiter = Limiter::start(&rates, Arc::new(MemoryBudgets::default()), stop.clone());
    let callers: Result<Vec<Who>, _> =
        (0..CALLERS).map(|_| PrincipalId::new(&clock::fresh_id("usr_")).map(Who::User)).collect();
    let callers = callers?;
    for who in &callers {
        let _ = limiter.admit(who, Class::Read).await;
    }
    let bar = rounds::bar(console, "rate limit", common.rounds);
    let mut samples = Samples::default();
    for _ in 0..common.rounds {
        let began = Instant::now();
        for who in callers.iter().cycle().take(MANY) {
            black_box(limiter.decide(black_box(who), Class::Read));
        }
        samples.push(began.elapsed().as_secs_f64() * 1_000_000.0 / MANY as f64);
        bar.inc(1);
    }
    bar.finish_and_clear();
    stop.cancel();
    Ok(Measured::alone("rate-limit decision", "us", samples.median(), Reach::AtMost(2.0)))
}
