//! What the NATS servers promise about acknowledged commits, asked at every start.

use metrics::gauge;
use nats::{Credentials, Durability, durability};
use runtime::telemetry;

use super::Addresses;
use crate::config::Config;

/// A sentence when the promise is weaker than ours, or unknown.
///
/// # Errors
/// When the configuration demands the full promise (ADR 0018).
pub(super) async fn notice(config: &Config, addresses: &Addresses) -> anyhow::Result<Option<String>> {
    let system = Credentials { user: addresses.system_user.clone(), password: addresses.system_password.clone() };
    let found = durability(&addresses.nats_url, &system).await;
    gauge!(telemetry::LOG_DURABLE).set(f64::from(u8::from(found == Durability::Always)));
    let Some(loss) = found.loss(config.nats.replicas) else { return Ok(None) };
    let what_to_do = match found {
        Durability::Unknown(_) => "set nats.system_user and nats.system_password so that it can be asked",
        _ => nats::SYNC_ADVICE,
    };
    anyhow::ensure!(
        !config.nats.require_durable,
        "nats.require_durable is set, and {loss}. To start: {what_to_do}, or set nats.require_durable = false"
    );
    Ok(Some(format!("{loss}. Better {what_to_do}")))
}
