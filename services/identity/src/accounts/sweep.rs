//! Forgetting what is over.

use std::time::Duration;

use projections::Failure;
use projections::identity::Exports;
use tokio_util::sync::CancellationToken;

use super::Accounts;

/// How often every instance looks. Two at once do no harm, each removes what the other has left.
const EVERY: Duration = Duration::from_secs(300);
/// As much is removed at once, of each kind.
const AT_ONCE: u64 = 1_000;

/// Removes codes, tries, devices, sessions, secrets of keys and archives of long ago until `stop`.
pub async fn sweep(accounts: Accounts, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = once(&accounts).await {
            tracing::warn!(%error, "what is over could not be removed; it is tried again in five minutes");
        }
    }
}

async fn once(accounts: &Accounts) -> Result<(), Failure> {
    let exports = Exports::new(&accounts.database);
    // Of each kind what has piled up since the last time; whatever takes more than this goes on the next time.
    for _ in 0..100 {
        let swept = [
            accounts.codes.sweep().await?,
            accounts.devices.sweep().await?,
            accounts.sessions.sweep().await?,
            accounts.api_keys.sweep().await?,
            exports.sweep().await?,
        ];
        if swept.iter().all(|swept| *swept < AT_ONCE) {
            break;
        }
    }
    Ok(())
}
