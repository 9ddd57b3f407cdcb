//! `/metrics`: one recorder per process, and what is read when somebody looks.

mod process;
mod sampled;

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use nats::Connection;
use projections::Database;
use runtime::{Executor, telemetry};

pub(super) use sampled::sample;

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// From 0.2 ms, a command on a quiet disk, to the 10 s after which its caller is told that the outcome is unknown.
const SECONDS: [f64; 15] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// To the largest batch that a server takes.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0];

/// Installed before anything begins: whoever asks for a metric earlier gets one that nobody ever sees.
pub(super) fn recorder() -> anyhow::Result<PrometheusHandle> {
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(telemetry::GROUP_COMMIT_SIZE.to_owned()), &SIZES)?
        .install_recorder()?;
    telemetry::describe();
    gauge!(telemetry::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    process::began();
    *recorder = Some(handle.clone());
    Ok(handle)
}

/// What renders `/metrics`. What can be had without asking anybody is read at that moment.
pub(super) fn page(
    handle: PrometheusHandle,
    executor: Executor,
    connection: Connection,
    database: Database,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    Arc::new(move || {
        gauge!(telemetry::EXECUTOR_WAITING).set(executor.waiting() as f64);
        gauge!(telemetry::LOG_WRITABLE).set(f64::from(u8::from(connection.trouble().is_none())));
        gauge!(telemetry::NATS_CONNECTED).set(f64::from(u8::from(connection.is_connected())));
        counter!(telemetry::NATS_RECONNECTS_TOTAL).absolute(connection.reconnects());
        let (size, idle) = (database.pool().size() as usize, database.pool().num_idle());
        gauge!(telemetry::POSTGRES_POOL_CONNECTIONS, "state" => "used").set(size.saturating_sub(idle) as f64);
        gauge!(telemetry::POSTGRES_POOL_CONNECTIONS, "state" => "idle").set(idle as f64);
        gauge!(telemetry::POSTGRES_POOL_LIMIT).set(f64::from(database.pool().options().get_max_connections()));
        process::look();
        handle.render()
    })
}
