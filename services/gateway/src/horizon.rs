//! Positions that were never given out: nobody waits for those. What a route would do with one is wait, five seconds for each
//! request, and then say that its rows are late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use kernel::{Position, Problem};
use rest::Fault;
use runtime::Log;
use serde::Deserialize;

/// How far the log has come, as far as is known here.
pub(crate) struct Horizon {
    log: Arc<dyn Log>,
    known: AtomicU64,
}

impl Horizon {
    pub(crate) fn of(log: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self { log, known: AtomicU64::default() })
    }

    /// Whether the log has a position. If it cannot be asked it might: then the rows are asked, as always.
    async fn includes(&self, position: Position) -> bool {
        if position.sequence() <= self.known.load(Ordering::Relaxed) {
            return true;
        }
        let Ok(head) = self.log.head().await else { return true };
        self.known.fetch_max(head.sequence(), Ordering::Relaxed);
        position <= head
    }
}

#[derive(Deserialize)]
struct Wanted {
    at_least: Option<String>,
}

/// The layer. Whatever else is wrong with a query its route says better.
pub(crate) async fn within(
    State(horizon): State<Arc<Horizon>>,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    let wanted = Query::<Wanted>::try_from_uri(request.uri()).ok().and_then(|query| query.0.at_least);
    if let Some(position) = wanted.and_then(|text| text.parse::<Position>().ok())
        && !horizon.includes(position).await
    {
        let detail = "The log has not come that far: pass a position back exactly as an answer gave it.";
        return Err(Problem::new(400, "invalid_position", detail).into());
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_has_what_it_has_given_out_and_no_more() {
        let horizon = Horizon::of(Arc::new(runtime::memory::MemoryLog::new()));
        assert!(horizon.includes(Position::START).await);
        assert!(!horizon.includes(Position::at(1)).await);
        assert_eq!(horizon.known.load(Ordering::Relaxed), 0);
    }
}
