//! One try of one effect: do it, report it, say how it ended.

use std::time::Duration;

use kernel::{CommandId, Problem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{Reactor, Report, Verdict};
use crate::retry::Backoff;
use crate::{Commands, EffectRow, EffectState, Request, Settlement, clock, telemetry, trace};

/// How long a report is repeated before the effect itself counts as undone. Doing it again is safe but rude: somebody
/// outside gets the same request twice.
const REPORT_FOR: Duration = Duration::from_secs(120);

/// A finished try.
pub(super) struct Finished {
    pub(super) settlement: Settlement,
    /// The effect again, when it is to be tried later; how often it has been tried is for the runner to say.
    pub(super) again: Option<EffectRow>,
}

pub(super) async fn perform<R: Reactor>(
    reactor: &R,
    commands: &dyn Commands,
    mut row: EffectRow,
    longest: Duration,
    stop: &CancellationToken,
) -> Finished {
    // An effect without a time is due at once; how long it took to be recorded is the consumer's lag.
    if row.due > kernel::Timestamp::UNIX_EPOCH {
        let late = (clock::now() - row.due).to_std().unwrap_or_default();
        metrics::histogram!(telemetry::EFFECT_LATENESS_SECONDS, "consumer" => R::NAME).record(late.as_secs_f64());
    }
    let span = tracing::info_span!(
        target: trace::TARGET,
        parent: None,
        "effect",
        otel.name = format!("effect {}", R::NAME),
        stream = %row.stream,
        effect = row.name,
        correlation = row.correlation,
        attempt = row.attempts,
        outcome = tracing::field::Empty,
    );
    trace::continues(&span, row.traceparent.as_deref());
    let trying = async {
        match reactor.perform(&row).await {
            Verdict::Done { note, report: Some(report) } => told(commands, &row, note, report, stop).await,
            other => other,
        }
    };
    let verdict = trying.instrument(span.clone()).await;
    let (state, due, note, outcome) = match verdict {
        Verdict::Done { note, .. } => (EffectState::Done, None, note, "done"),
        Verdict::Retry { reason, after } => {
            let step = Duration::from_millis(200).saturating_mul(1_u32 << row.attempts.min(16));
            let wait = after.unwrap_or(step.min(longest));
            let due = clock::now() + chrono::Duration::from_std(wait).unwrap_or_default();
            (EffectState::Scheduled, Some(due), reason, "retry")
        }
        Verdict::Park { reason } => (EffectState::Parked, None, reason, "parked"),
    };
    span.record("outcome", outcome);
    metrics::counter!(telemetry::EFFECTS_TOTAL, "consumer" => R::NAME, "outcome" => outcome).increment(1);
    if outcome != "done" {
        tracing::warn!(consumer = R::NAME, stream = %row.stream, effect = row.name, reason = note, outcome, "effect not done");
    }
    let (stream, name, event) = (row.stream.clone(), row.name.clone(), row.event.clone());
    let settlement = Settlement { stream, name, event, state, due, note };
    let again = due.map(|due| {
        row.due = due;
        row
    });
    Finished { settlement, again }
}

/// Reports until there is an answer.
async fn told(
    commands: &dyn Commands,
    row: &EffectRow,
    note: String,
    report: Report,
    stop: &CancellationToken,
) -> Verdict {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let until = Instant::now() + REPORT_FOR;
    loop {
        let problem = match tell(commands, row, &report).await {
            Ok(()) => return Verdict::Done { note: format!("{note}; reported by `{}`", report.command), report: None },
            Err(problem) => problem,
        };
        let later = problem.is_transient() || problem.retry_after_ms.is_some();
        match problem.status {
            _ if later && !stop.is_cancelled() && Instant::now() < until => backoff.wait().await,
            // Before its time, or nobody there to be told.
            _ if later || problem.status >= 500 => {
                let after = problem.retry_after_ms.map(Duration::from_millis);
                return Verdict::Retry { reason: format!("done, but could not be reported: {problem}"), after };
            }
            // The report itself is wrong: a person has to look. A reused id is another matter: an earlier try was told.
            400 | 413 | 422 if problem.code != "command_id_reused" => {
                return Verdict::Park { reason: format!("done, but its report is refused: {problem}") };
            }
            // The stream has moved on without this effect: that is an answer.
            _ => {
                let note = format!("{note}; `{}` was refused: {}", report.command, problem.code);
                return Verdict::Done { note, report: None };
            }
        }
    }
}

async fn tell(commands: &dyn Commands, row: &EffectRow, report: &Report) -> Result<(), Problem> {
    let id = CommandId::new(&row.idempotency_key())?;
    let body = serde_json::to_vec(&report.body).map_err(|error| Problem::malformed(error.to_string()))?;
    let request = Request {
        correlation: Some(row.correlation.clone()),
        causation: Some(row.event.clone()),
        traceparent: trace::current(),
        ..Request::internal(report.to.clone(), report.command, body).with_id(id)
    };
    commands.execute(request).await.map(|_| ())
}
