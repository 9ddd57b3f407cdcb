//! How much memory `serve` takes beside a log of very many streams, once its caches are as full as they get.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use embedded::Child as Server;
use events::workflow::{Defined, Event};
use futures::{StreamExt as _, TryStreamExt as _};
use kernel::{EventSet as _, NewEvent, StreamName};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::Common;
use super::e2e;
use super::histories;
use super::machine::{resident_mib, resident_with_children_mib};
use super::place::{self, Place};
use super::project::raw_connection;
use super::raw::{self, Message};
use super::report::{Measured, Reach};
use crate::output::Console;

/// The flags of `memory`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Streams in the log
    #[arg(long, value_name = "N", default_value_t = STREAMS)]
    streams: usize,
}

const STREAMS: usize = 1_000_000;
/// Messages of one raw batch: the most that the server takes.
const BATCH: usize = 1_000;
/// Commands in flight while the caches are filled.
const AT_ONCE: usize = 256;
/// How long the projections may take for it.
const PATIENCE: Duration = Duration::from_secs(3_600);

pub(super) async fn measure(console: &Console, place: &Place, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    // Made before the log is filled, which makes the checkpoints' table as well.
    place.database().await?.close().await;
    place.log().await?;
    write(console, place, arguments.streams).await?;
    let serving = Serving::start(place)?;
    let (mut connection, mut figures) = (raw_connection(place).await?, Vec::new());
    serving.wait_for_projections(console, &mut connection, arguments.streams).await?;
    let caught_up = serving.resident()?;
    let filled = fill_caches(console, place, arguments.streams).await?;
    let (now, peak) = serving.resident()?;
    let detail = json!({
        "streams": arguments.streams,
        "streams_touched": filled,
        "after_catch_up_mib": caught_up.0,
        "peak_mib": peak,
    });
    let reach = if arguments.streams == STREAMS { Reach::AtMost(256.0) } else { Reach::Told };
    figures.push(Measured::alone("memory", "MiB", now, reach).with(detail));
    if let Some((now, peak)) = place.pid(Server::Nats).and_then(resident_mib) {
        let detail = json!({ "peak_mib": peak });
        figures.push(Measured::alone("memory of nats-server", "MiB", now, Reach::Told).with(detail));
    }
    if let Some(now) = place.pid(Server::Postgres).and_then(resident_with_children_mib) {
        figures.push(Measured::alone("memory of postgres", "MiB", now, Reach::Told));
    }
    Ok(figures)
}

fn stream(place: &Place, number: usize) -> anyhow::Result<StreamName> {
    Ok(StreamName::new(&place.config.development.tenant, events::workflow::CATEGORY, &format!("wf_{number:08}"))?)
}

/// One small commit for every stream.
async fn write(console: &Console, place: &Place, streams: usize) -> anyhow::Result<()> {
    let bar = console.bar("writing streams");
    bar.set_length(streams as u64);
    let (connection, definition) = (place.connection().await?, histories::definition()?);
    let document = std::sync::Arc::new(json!({ "steps": [] }));
    for first in (0..streams).step_by(BATCH) {
        let messages = (first..streams.min(first + BATCH)).map(|number| {
            let stream = stream(place, number)?;
            let event = Event::Defined(Defined {
                version: 1,
                hash: definition.hash(),
                document: document.clone(),
                definition: definition.clone(),
            });
            let mut draft = histories::commit(&stream, "define", 0, &[])?;
            draft.events = vec![NewEvent::of(&event)];
            Ok(Message::new(stream, draft.to_bytes().into(), event.type_name().to_owned()))
        });
        let mut messages = messages.collect::<anyhow::Result<Vec<_>>>()?;
        raw::publish_batch(connection.client(), &mut messages).await?;
        bar.inc(messages.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Touches more streams than the writers remember, each with a commit as large as its share of their memory: the state that
/// is folded from it is larger.
async fn fill_caches(console: &Console, place: &Place, streams: usize) -> anyhow::Result<usize> {
    let executor = &place.config.executor;
    let shards = usize::from(kernel::SHARDS);
    let touched = streams.min(executor.streams_per_shard * shards * 5 / 4);
    let size = executor.cache_bytes_per_shard / executor.streams_per_shard.max(1);
    let body = definition_of(size).to_string();
    let bar = console.bar("filling caches");
    bar.set_length(touched as u64);
    let caller = e2e::caller(place).await?;
    let development = &place.config.development;
    let to = format!("cmd.{}.{}.workflow", development.tenant, development.principal);
    let asking = futures::stream::iter(0..touched).map(|number| {
        let (caller, bar, body) = (&caller, &bar, body.clone());
        let subject = format!("{to}.wf_{number:08}.define");
        async move {
            e2e::ask(caller, subject, body).await?;
            bar.inc(1);
            anyhow::Ok(())
        }
    });
    asking.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    bar.finish_and_clear();
    Ok(touched)
}

/// A definition whose commit has about so many bytes: it stands there twice, as written and as understood.
fn definition_of(bytes: usize) -> Value {
    let text = |number: usize| json!({ "id": format!("step-{number}"), "kind": "pass", "output": { "note": "x".repeat(100) } });
    let one = text(0).to_string().len() * 2 + 60;
    json!({ "steps": (0..(bytes / one).clamp(1, 100)).map(text).collect::<Vec<_>>() })
}

/// `airstream serve` as a process of its own: what measures it must not be part of what is measured.
struct Serving(Child);

impl Serving {
    fn start(place: &Place) -> anyhow::Result<Self> {
        let addresses = &place.addresses;
        let exe = std::env::current_exe().context("could not find this program")?;
        let mut command = Command::new(exe);
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // No configuration but this: a file in the working directory would be another.
        command.current_dir(place.folder().unwrap_or(Path::new("/")));
        command.env_remove("AIRSTREAM_CONFIG");
        let tenants = addresses.tenants.as_ref();
        let door = tenants.map(|tenants| &tenants.door);
        for (name, value) in [
            ("AIRSTREAM__NATS__URL", addresses.nats_url.as_str()),
            ("AIRSTREAM__NATS__USER", &addresses.nats_user),
            ("AIRSTREAM__NATS__PASSWORD", &addresses.nats_password),
            ("AIRSTREAM__NATS__TENANTS_USER", door.map_or("", |door| &door.user)),
            ("AIRSTREAM__NATS__TENANTS_PASSWORD", door.map_or("", |door| &door.password)),
            ("AIRSTREAM__POSTGRES__URL", &addresses.postgres_url),
            ("AIRSTREAM__HTTP__BIND", "127.0.0.1:0"),
            ("AIRSTREAM__LIMITS__USER__WRITE", place::WIDE),
            ("AIRSTREAM__LIMITS__TENANT__WRITE", place::WIDE),
            ("AIRSTREAM__DEVELOPMENT__TOKEN", "only-for-this-measurement"),
            ("AIRSTREAM__IDENTITY__MASTER_KEY", &vault::MasterKey::generate()),
        ] {
            command.env(name, value);
        }
        Ok(Self(command.spawn().context("could not start `airstream serve`")?))
    }

    fn resident(&self) -> anyhow::Result<(f64, f64)> {
        resident_mib(self.0.id()).context("memory can be measured on Linux only, and while `serve` runs")
    }

    /// Every projection has seen the whole log.
    async fn wait_for_projections(
        &self,
        console: &Console,
        connection: &mut PgConnection,
        streams: usize,
    ) -> anyhow::Result<()> {
        let bar = console.bar("projecting");
        bar.set_length(streams as u64);
        let began = Instant::now();
        loop {
            self.resident()?;
            let (consumers, slowest): (i64, Option<i64>) =
                sqlx::query_as("SELECT count(*), min(position) FROM airstream.checkpoints")
                    .fetch_one(&mut *connection)
                    .await?;
            let slowest = usize::try_from(slowest.unwrap_or_default()).unwrap_or_default();
            bar.set_position(slowest as u64);
            // Four projections and the reactor.
            if consumers >= 5 && slowest >= streams {
                bar.finish_and_clear();
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the projections did not catch up in an hour");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
