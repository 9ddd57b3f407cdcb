//! `airstream bench`: what we do, held against what the machine could do.
//!
//! Every measurement does the same work twice, through our code and straight with the client of the server (or the
//! parser) underneath, with the same payload and the same durability, taking turns. What is judged is the ratio:
//! absolute figures move with the machine, and a machine that is busy hurts both sides.

mod append;
mod e2e;
mod fold;
mod histories;
mod http;
mod latency;
mod machine;
mod memory;
mod place;
mod project;
mod raw;
mod rebuild;
mod report;
mod rounds;
mod rows;
mod sample;
mod start;

use clap::ValueEnum;

use super::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Signals;
use place::Place;
use report::Measured;

/// What can be measured.
#[derive(Debug, Clone, clap::Subcommand)]
#[command(
    after_long_help = "Each measurement starts servers of its own, in a temporary folder on the disk of the data \
                       directory, unless nats.url or postgres.url names others (then in an account without our \
                       streams); --ephemeral always does. It removes what it made.\n\nExamples:\n  \
                       airstream bench all                    everything but `memory`\n  \
                       airstream bench append --sync default  without waiting for the disk\n  \
                       airstream bench all --json > figures.json"
)]
pub(crate) enum Verb {
    /// Commands accepted per second, against raw atomic batches of 200
    #[command(
        after_long_help = "Examples:\n  airstream bench append\n  airstream bench append --through door --seconds 20"
    )]
    Append(#[command(flatten)] append::Arguments),
    /// One command in flight, against one raw publish in flight
    #[command(after_long_help = "Example:\n  airstream bench latency --json")]
    Latency(#[command(flatten)] latency::Arguments),
    /// A projection that catches up, against raw upserts of the same rows
    #[command(after_long_help = "Example:\n  airstream bench project --size 50000")]
    Project(#[command(flatten)] Common),
    /// A projection that is rebuilt, against a raw COPY of the same rows
    #[command(after_long_help = "Example:\n  airstream bench rebuild --size 50000")]
    Rebuild(#[command(flatten)] Common),
    /// A stream that is folded, against parsing the same bytes
    #[command(after_long_help = "Example:\n  airstream bench fold --size 10000")]
    Fold(#[command(flatten)] Common),
    /// From a command to its row in Postgres, under a steady load
    #[command(after_long_help = "Example:\n  airstream bench e2e --rate 1000 --seconds 30")]
    E2e(#[command(flatten)] e2e::Arguments),
    /// The front door: reads of one row, tokens, logins, rate limits
    #[command(after_long_help = "Example:\n  airstream bench http --seconds 30")]
    Http(#[command(flatten)] Common),
    /// Memory of `serve` beside a log of many streams, caches full; takes minutes
    #[command(after_long_help = "Examples:\n  airstream bench memory\n  airstream bench memory --streams 100000")]
    Memory(#[command(flatten)] memory::Arguments),
    /// From nothing, and from what was there, to a stack that is ready
    #[command(after_long_help = "Example:\n  airstream bench start --rounds 10")]
    Start(#[command(flatten)] Common),
    /// All of them but `memory`, which takes minutes
    #[command(after_long_help = "Examples:\n  airstream bench all\n  airstream bench all --sync default --json")]
    All(#[command(flatten)] Common),
}

/// How a measurement is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Use servers of our own even if others are configured
    #[arg(long)]
    ephemeral: bool,
    /// When our own NATS server flushes to disk: before it acknowledges, or as it does by default, up to two minutes later
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Always)]
    sync: Sync,
    /// How often both sides take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long a measurement with a clock takes, both sides together
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    seconds: f64,
    /// How much a measurement with a given amount of work does in a round: commits, or events [default: its own]
    #[arg(long, value_name = "N")]
    size: Option<usize>,
}

/// When NATS flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Before it acknowledges.
    Always,
    /// Now and then.
    Default,
}

impl Sync {
    fn word(self) -> &'static str {
        match self {
            Sync::Always => "always",
            Sync::Default => "default",
        }
    }
}

impl Common {
    /// How long one side's turn takes when a measurement has two sides.
    fn turn(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64((self.seconds / f64::from(self.rounds) / 2.0).max(0.001))
    }

    fn size_or(&self, usual: usize) -> usize {
        self.size.unwrap_or(usual).max(1)
    }
}

impl Verb {
    fn common(&self) -> &Common {
        match self {
            Verb::Append(arguments) => &arguments.common,
            Verb::Latency(arguments) => &arguments.common,
            Verb::E2e(arguments) => &arguments.common,
            Verb::Memory(arguments) => &arguments.common,
            Verb::Project(common)
            | Verb::Rebuild(common)
            | Verb::Fold(common)
            | Verb::Start(common)
            | Verb::Http(common) => common,
            Verb::All(common) => common,
        }
    }

    /// The measurements that this one stands for.
    fn parts(&self) -> Vec<Verb> {
        let Verb::All(common) = self else { return vec![self.clone()] };
        let common = || common.clone();
        vec![
            Verb::Append(append::Arguments::usual(common())),
            Verb::Latency(latency::Arguments::usual(common())),
            Verb::Project(common()),
            Verb::Rebuild(common()),
            Verb::Fold(common()),
            Verb::E2e(e2e::Arguments::usual(common())),
            Verb::Http(common()),
            Verb::Start(common()),
        ]
    }
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let common = verb.common();
    if !(common.seconds.is_finite() && common.seconds > 0.0) {
        return Err(Failure::usage("--seconds is a number above 0"));
    }
    if cfg!(debug_assertions) {
        context
            .console
            .say(&context.console.yellow("this is a debug build: the figures say nothing about the product"));
    }
    let mut signals = Signals::new()?;
    let mut measured = Vec::new();
    let mut machine = machine::Machine::look();
    for part in verb.parts() {
        measured.extend(one(context, &part, &mut machine, &mut signals).await?);
    }
    report::print(context.console, &machine.finished(), &measured)
}

/// One measurement, on servers that nobody else uses.
async fn one(
    context: &Context<'_>,
    verb: &Verb,
    machine: &mut machine::Machine,
    signals: &mut Signals,
) -> Outcome<Vec<Measured>> {
    let place = match verb {
        Verb::Fold(_) | Verb::Start(_) => None,
        _ => Some(Place::open(context, verb.common()).await?),
    };
    // Whether it is done, given up or failed: what was started ends, what was made is removed.
    let found = tokio::select! {
        found = measure(context, verb, place.as_ref(), machine) => found,
        () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing is left behind")),
    };
    if let Some(place) = place {
        place.close().await?;
    }
    found
}

async fn measure(
    context: &Context<'_>,
    verb: &Verb,
    place: Option<&Place>,
    machine: &mut machine::Machine,
) -> Outcome<Vec<Measured>> {
    let console = context.console;
    let Some(place) = place else {
        return match verb {
            Verb::Fold(common) => Ok(fold::measure(console, common)?),
            other => start::measure(context, other.common()).await,
        };
    };
    machine.met(place)?;
    let found = match verb {
        Verb::Append(arguments) => append::measure(console, place, arguments).await,
        Verb::Latency(arguments) => latency::measure(console, place, arguments).await,
        Verb::Project(common) => project::measure(console, place, common).await,
        Verb::Rebuild(common) => rebuild::measure(console, place, common).await,
        Verb::E2e(arguments) => e2e::measure(console, place, arguments).await,
        Verb::Http(common) => http::measure(console, place, common).await,
        Verb::Memory(arguments) => memory::measure(console, place, arguments).await,
        Verb::Fold(_) | Verb::Start(_) | Verb::All(_) => Ok(Vec::new()),
    };
    Ok(found?)
}
