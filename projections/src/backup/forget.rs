//! What the log says has ended stays ended, also where the tables of a backup are older: keys of people who were erased are
//! destroyed again, and keys of programs that were revoked are revoked. Before anything starts on what was restored.

use std::sync::Arc;

use events::{key, person};
use futures::StreamExt;
use kernel::{Category, Position};
use runtime::consume::HandleError;
use runtime::{Filter, Log, LogError};
use vault::Keyring;

use super::REVOKED;
use crate::identity::PgKeyring;
use crate::{Database, machinery};

/// Destroys and revokes again what the log says is gone. Returns how many people that were.
///
/// # Errors
/// When the log or Postgres cannot be asked.
pub async fn forget(database: &Database, log: &Arc<dyn Log>) -> Result<u64, HandleError> {
    let unreadable = |error: LogError| HandleError::Transient(error.to_string());
    let keyring = PgKeyring::new(database);
    let mut people = 0;
    for category in [person::CATEGORY, key::CATEGORY] {
        let filter = Filter { category: Category::new(category).ok(), ..Filter::default() };
        let reader = log.read(Position::START, &filter).await.map_err(unreadable)?;
        // Nobody writes meanwhile.
        let mut commits = reader.commits.take(usize::try_from(reader.waiting).unwrap_or(usize::MAX));
        while let Some(recorded) = commits.next().await {
            let recorded = recorded.map_err(unreadable)?;
            // Who cannot be read was parked, or will be.
            let Ok(Some((stream, commit))) = recorded.history() else { continue };
            let ended = |name: &str| commit.events.iter().any(|event| event.type_name == name);
            if ended("person.erased") {
                let destroyed = keyring.destroy(stream.id.as_str()).await;
                destroyed.map_err(|error| HandleError::Transient(error.to_string()))?;
                people += 1;
            }
            if ended("api-key.revoked") {
                let query = sqlx::query(REVOKED).bind(stream.id.as_str()).bind(stream.tenant.as_str());
                let done = query.execute(database.pool()).await;
                done.map_err(|error| machinery::our_error("revoke a key", error))?;
            }
        }
    }
    Ok(people)
}
