//! Commands accepted per second, many streams and many callers at once, against raw atomic batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::future::try_join_all;
use kernel::Position;
use serde_json::json;

use super::Common;
use super::place::Place;
use super::raw::{self, Message};
use super::report::{Measured, Reach};
use super::rounds::{self, Samples, rate};
use super::sample::{self, Through, Tills};
use crate::output::Console;

/// Messages in one raw batch.
const BATCH: usize = 200;

/// The flags of `append`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Which way commands take
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Through::Executor)]
    through: Through,
    /// Callers at once, each with one command in flight
    #[arg(long, value_name = "N", default_value_t = CALLERS)]
    callers: usize,
    /// Streams that each side writes to; they fit into the writers' memory
    #[arg(long, value_name = "N", default_value_t = STREAMS)]
    streams: usize,
}

const CALLERS: usize = 2_000;
const STREAMS: usize = 20_000;

impl Arguments {
    pub(super) fn usual(common: Common) -> Self {
        Self { common, through: Through::Executor, callers: CALLERS, streams: STREAMS }
    }
}

pub(super) async fn measure(console: &Console, place: &Place, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let common = &arguments.common;
    let callers = arguments.callers.max(1);
    let streams = arguments.streams.max(callers).max(BATCH);
    let log = place.log().await?;
    let tills = Tills::open(place, Arc::clone(&log), arguments.through).await?;
    let own = (0..callers)
        .map(|caller| (caller..streams).step_by(callers).map(|number| sample::stream("ours", number)).collect())
        .collect::<anyhow::Result<Vec<Vec<_>>>>()?;
    let connection = place.connection().await?;
    let raw = (0..streams).map(|number| sample::message(sample::stream("raws", number)?));
    let mut raw = raw.collect::<anyhow::Result<Vec<_>>>()?;

    let bar = rounds::bar(console, "append", common.rounds * 2 + 2);
    // Every stream's first command: ours has to find out that there is no history yet. Told, not judged.
    let began = Instant::now();
    try_join_all(own.iter().map(async |streams| {
        for stream in streams {
            tills.take(stream).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    let first_commands = rate(streams, began.elapsed());
    bar.inc(1);
    let began = Instant::now();
    for chunk in raw.chunks_mut(BATCH) {
        raw::publish_batch(connection.client(), chunk).await?;
    }
    let first_raw = rate(streams, began.elapsed());
    bar.inc(1);

    let (mut ours, mut limit, mut next) = (Samples::default(), Samples::default(), 0);
    for round in 0..common.rounds {
        for turn in [rounds::ours_first(round), !rounds::ours_first(round)] {
            if turn {
                ours.push(ask(&tills, &own, common.turn()).await?);
            } else {
                limit.push(write(connection.client(), &mut raw, &mut next, common.turn()).await?);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let payload = |recorded: Option<runtime::Recorded>| recorded.map(|recorded| recorded.payload.len());
    let detail = json!({
        "through": arguments.through.word(),
        "callers": callers,
        "streams": streams,
        "raw_batch": BATCH,
        "ours_payload_bytes": payload(log.at(Position::at(1)).await?),
        "limit_payload_bytes": payload(log.at(Position::at(streams as u64 + 1)).await?),
        "ours_first_commands_per_second": first_commands.round(),
        "limit_first_messages_per_second": first_raw.round(),
    });
    tills.close().await;
    let name = format!("append{}", arguments.through.suffix());
    let reach = match arguments.through {
        Through::Executor => Reach::ShareAndRate(0.5, 25_000.0),
        Through::Door => Reach::Told,
    };
    Ok(vec![Measured::of_rounds(&name, "commands/s", &ours, &limit, reach).with(detail)])
}

/// Every caller asks, waits for the answer, and asks again.
async fn ask(tills: &Tills, own: &[Vec<kernel::StreamName>], time: Duration) -> anyhow::Result<f64> {
    let (began, done) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let callers = own.iter().map(|streams| {
        let (tills, streams, done) = (tills.clone(), streams.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            for stream in streams.iter().cycle() {
                if began.elapsed() >= time {
                    break;
                }
                tills.take(stream).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    Ok(rate(done.load(Ordering::Relaxed), began.elapsed()))
}

/// One batch after the other, each as soon as the one before is acknowledged.
async fn write(client: &Client, messages: &mut [Message], next: &mut usize, time: Duration) -> anyhow::Result<f64> {
    let (began, mut done, chunks) = (Instant::now(), 0, messages.len() / BATCH);
    while began.elapsed() < time {
        let from = *next % chunks * BATCH;
        *next += 1;
        if let Some(chunk) = messages.get_mut(from..from + BATCH) {
            raw::publish_batch(client, chunk).await?;
            done += chunk.len();
        }
    }
    Ok(rate(done, began.elapsed()))
}
