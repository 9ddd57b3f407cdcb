//! How long one caller waits for the answer to one command, against one raw publish.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Common;
use super::place::Place;
use super::raw;
use super::report::{Measured, Reach};
use super::rounds::{self, Samples};
use super::sample::{self, Through, Tills};
use crate::output::Console;

/// The flags of `latency`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Which way commands take
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Through::Executor)]
    through: Through,
}

/// Streams in turn: so many that none is a hot one, and that none outgrows its writer's memory of command ids, beyond which an
/// index is asked, or searched for in the log where there is none, as here.
const STREAMS: usize = 2_000;
/// Pairs between two looks at the clock.
const PAIRS: usize = 10;

impl Arguments {
    pub(super) fn usual(common: Common) -> Self {
        Self { common, through: Through::Executor }
    }
}

pub(super) async fn measure(console: &Console, place: &Place, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let common = &arguments.common;
    let tills = Tills::open(place, place.log().await?, arguments.through).await?;
    let own = (0..STREAMS).map(|number| sample::stream("ours", number)).collect::<anyhow::Result<Vec<_>>>()?;
    for stream in &own {
        tills.take(stream).await?;
    }
    let connection = place.connection().await?;
    let raw = (0..STREAMS).map(|number| sample::message(sample::stream("raws", number)?));
    let mut raw = raw.collect::<anyhow::Result<Vec<_>>>()?;
    for message in &mut raw {
        raw::publish(connection.client(), message).await?;
    }

    let (mut p50, mut p99) = ([Samples::default(), Samples::default()], [Samples::default(), Samples::default()]);
    let bar = rounds::bar(console, "latency", common.rounds);
    // One of ours, one of theirs: both sides meet the same weather.
    let mut number = 0;
    for _ in 0..common.rounds {
        let (began, mut ours, mut limit) = (Instant::now(), Samples::default(), Samples::default());
        while began.elapsed() < common.turn() * 2 {
            for _ in 0..PAIRS {
                number += 1;
                let asked = Instant::now();
                tills.take(&own[number % STREAMS]).await?;
                ours.push(milliseconds(asked.elapsed()));
                let asked = Instant::now();
                raw::publish(connection.client(), &mut raw[number % STREAMS]).await?;
                limit.push(milliseconds(asked.elapsed()));
            }
        }
        for (found, share) in [(&mut p50, 0.5), (&mut p99, 0.99)] {
            found[0].push(ours.quantile(share));
            found[1].push(limit.quantile(share));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    tills.close().await;
    let detail = json!({ "through": arguments.through.word(), "pairs": number });
    let figure = |which: &str, [ours, limit]: &[Samples; 2], times: f64| {
        let reach = if arguments.through == Through::Executor { Reach::Times(times) } else { Reach::Told };
        let name = format!("latency {which}{}", arguments.through.suffix());
        Measured::of_rounds(&name, "ms", ours, limit, reach).with(detail.clone())
    };
    Ok(vec![figure("p50", &p50, 2.0), figure("p99", &p99, 3.0)])
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
