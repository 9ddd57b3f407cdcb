//! Questions about how a stream once was.

use kernel::{Decider, FactError, Position, Problem, StreamName};

use crate::writer::{log_unreadable, unreadable_history};
use crate::{Executor, Freshness};

impl Executor {
    /// The first answer that the states of a stream's history give, from the first commit on; `None` when none gives one.
    /// For what a state has let go so as not to grow for ever: it reads the log each time, and keeps nothing.
    ///
    /// # Errors
    /// 503 when the log cannot be read now, 500 when the stream's history cannot be decoded.
    pub async fn recall<D: Decider, T>(
        &self,
        stream: &StreamName,
        answer: impl Fn(&D::State) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let environment = self.environment();
        let (mut state, mut after, mut fresh) = (D::State::default(), Position::START, Freshness::Any);
        loop {
            let page = environment.log.read_stream(stream, after, fresh).await;
            let page = page.map_err(|error| log_unreadable(&error))?;
            for recorded in &page.commits {
                let unreadable = |reason| unreadable_history(stream, recorded.position, reason);
                if let Some((_, commit)) = recorded.history().map_err(unreadable)? {
                    for envelope in &commit.events {
                        let event = envelope.decode().map_err(|error: FactError| unreadable(error.to_string()))?;
                        state = D::evolve(state, &event);
                    }
                    if let Some(answer) = answer(&state) {
                        return Ok(Some(answer));
                    }
                }
                after = recorded.position;
            }
            match fresh {
                _ if page.more => {}
                // That replica may be behind. The leader is not.
                Freshness::Any => fresh = Freshness::Leader,
                Freshness::Leader => return Ok(None),
            }
        }
    }
}
