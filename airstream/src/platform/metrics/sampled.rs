//! What only NATS and Postgres know: how full the queues are, what is parked. Read every few seconds rather than when
//! somebody looks, so that looking costs the servers nothing and never has to wait for one that is away.

use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use nats::WorkQueue;
use projections::{Database, status};
use runtime::{clock, telemetry};
use tokio_util::sync::CancellationToken;

/// Half the usual interval of a scrape, and then some.
const EVERY: Duration = Duration::from_secs(5);

/// Samples until `stop`.
pub(in crate::platform) async fn sample(
    recorder: PrometheusHandle,
    queues: [(&'static str, WorkQueue); 2],
    database: Database,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Histograms keep every value until they are summed up: without this they would grow for as long as nobody looks.
        recorder.run_upkeep();
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look(&queues, &database) => looked,
        };
        match looked {
            Ok(()) => {
                gauge!(telemetry::SAMPLED_TIMESTAMP_SECONDS).set(clock::now().timestamp_micros() as f64 / 1e6);
            }
            // Whoever is away is told of elsewhere; here it only means that these numbers stand still.
            Err(error) => tracing::debug!(error, "could not sample"),
        }
    }
}

async fn look(queues: &[(&'static str, WorkQueue); 2], database: &Database) -> Result<(), String> {
    for (door, queue) in queues {
        let depth = queue.depth().await.map_err(|error| error.to_string())?;
        gauge!(telemetry::DOOR_DEPTH, "door" => *door).set(depth as f64);
    }
    for row in status::consumers(database.pool()).await.map_err(|error| error.to_string())? {
        let set = |name: &'static str, state: Option<&'static str>, value: f64| {
            let mut labels = vec![("consumer", row.consumer.clone())];
            labels.extend(state.map(|state| ("state", state.to_owned())));
            gauge!(name, &labels).set(value);
        };
        // Postgres' clock may be ahead of ours.
        let waiting = row.parked_since.map(|since| (clock::now() - since).to_std().unwrap_or_default());
        set(telemetry::CONSUMER_PARKED_COMMITS, None, row.parked as f64);
        set(telemetry::CONSUMER_PARKED_SECONDS, None, waiting.unwrap_or_default().as_secs_f64());
        set(telemetry::EFFECTS, Some("scheduled"), row.effects_scheduled as f64);
        set(telemetry::EFFECTS, Some("parked"), row.effects_parked as f64);
    }
    Ok(())
}
