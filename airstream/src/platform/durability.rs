//! What the NATS server promises about acknowledged commits, asked at every start.

use nats::{Credentials, Durability, durability};

use super::Addresses;

/// A sentence when the promise is weaker than ours, or unknown.
pub(super) async fn notice(addresses: &Addresses) -> Option<String> {
    let system = Credentials { user: addresses.system_user.clone(), password: addresses.system_password.clone() };
    match durability(&addresses.nats_url, &system).await {
        Durability::Always => None,
        Durability::Every(interval) => Some(format!(
            "NATS acknowledges before it syncs to disk (every {} s): a power failure can lose accepted commands. \
             Set `sync_interval: always` in its `jetstream` block",
            interval.as_secs()
        )),
        Durability::Unknown(reason) => Some(format!(
            "whether NATS syncs before it acknowledges is not known ({reason}): set nats.system_user and \
             nats.system_password, or see to `sync_interval: always` yourself"
        )),
    }
}
