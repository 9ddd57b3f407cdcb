//! What happened to somebody's account, as they may see it.

use kernel::{Cursor, Position, Problem, Timestamp};
use projections::audit;
use runtime::Freshness;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Inner, Privacy};
use crate::accounts::stream_of;

/// Something that happened to an account.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Happened {
    /// Where it stands in the log.
    #[schema(example = "p1-2a.0")]
    pub position: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The event's type.
    #[schema(example = "person.session_opened")]
    pub action: String,
    /// The same in words.
    #[schema(example = "You signed in by password.")]
    pub what: String,
    /// The session that it is about.
    #[schema(example = "ses_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub session: Option<String>,
    /// From which address.
    #[schema(example = "203.0.113.7")]
    pub address: Option<String>,
    /// By what program.
    #[schema(example = "Mozilla/5.0 (X11; Linux x86_64)")]
    pub device: Option<String>,
}

impl Privacy {
    /// What happened to a person's account before a place in the log, the newest first.
    ///
    /// # Errors
    /// 503.
    pub async fn history(&self, person: &str, before: Option<Cursor>, limit: usize) -> Result<Vec<Happened>, Problem> {
        let pool = self.accounts.database.pool();
        let mut happened = Vec::new();
        for row in audit::of_person(pool, person, before, limit as i64).await? {
            let position = row.cursor().to_string();
            let entry = row.entry;
            let data = self.opened(entry.data).await?;
            let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            happened.push(Happened {
                position,
                time: entry.at,
                what: super::sentence::yours(&entry.action, &data),
                session: text("/session"),
                address: text("/origin/address"),
                device: text("/origin/agent"),
                action: entry.action,
            });
        }
        Ok(happened)
    }
}

impl Inner {
    /// A person's events from the first to the last, out of the log itself, with everything opened.
    ///
    /// # Errors
    /// 413 when there are more than `most`, 503.
    pub(super) async fn whole_history(&self, person: &str, most: usize) -> Result<Vec<Value>, Problem> {
        let stream = stream_of(person)?;
        let (mut after, mut events) = (Position::START, Vec::new());
        loop {
            let page = self.log.read_stream(&stream, after, Freshness::Leader).await.map_err(unreadable)?;
            let Some(last) = page.commits.last().map(|recorded| recorded.position) else { return Ok(events) };
            for recorded in &page.commits {
                let Some((_, commit)) = recorded.history().map_err(broken)? else { continue };
                for envelope in &commit.events {
                    let data: Value = serde_json::from_str(envelope.data.get()).unwrap_or_default();
                    events.push(json!({
                        "type": envelope.type_name, "time": envelope.time, "version": envelope.streamversion,
                        "correlation": envelope.correlationid, "data": self.opened(data).await?,
                    }));
                }
            }
            if events.len() > most {
                return Err(Problem::new(413, "too_large", "The history is too long for one archive."));
            }
            after = last;
            if !page.more {
                return Ok(events);
            }
        }
    }
}

fn unreadable(error: runtime::LogError) -> Problem {
    tracing::warn!(%error, "somebody's history");
    Problem::unavailable("The log cannot be read right now.", 1_000)
}

fn broken(reason: String) -> Problem {
    tracing::error!(reason, "somebody's history cannot be read");
    Problem::new(500, "unreadable", "A part of the history cannot be read; it has been logged.")
}
