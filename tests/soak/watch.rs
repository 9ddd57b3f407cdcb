//! A look every few seconds at everything that could creep.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::load::Load;
use crate::stack::Stack;

/// One window.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) airstream_mib: f64,
    pub(crate) nats_mib: f64,
    /// Anonymous memory of all its processes: the shared buffers fill up once and are not what could leak.
    pub(crate) postgres_mib: f64,
    pub(crate) commands: u64,
    pub(crate) runs: u64,
    pub(crate) answer_p50_ms: f64,
    pub(crate) answer_p99_ms: f64,
    pub(crate) delivery_p50_ms: f64,
    pub(crate) delivery_max_ms: f64,
    /// Of the consumer that is furthest behind.
    pub(crate) lag_events: u64,
    pub(crate) effects_waiting: u64,
    pub(crate) parked: u64,
    pub(crate) errors: u64,
}

const HEADINGS: &str = "seconds,airstream_mib,nats_mib,postgres_mib,commands,runs,answer_p50_ms,answer_p99_ms,\
                        delivery_p50_ms,delivery_max_ms,lag_events,effects_waiting,parked,errors";

impl Sample {
    fn line(&self) -> String {
        format!(
            "{:.1},{:.1},{:.1},{:.1},{},{},{:.3},{:.3},{:.3},{:.3},{},{},{},{}",
            self.seconds,
            self.airstream_mib,
            self.nats_mib,
            self.postgres_mib,
            self.commands,
            self.runs,
            self.answer_p50_ms,
            self.answer_p99_ms,
            self.delivery_p50_ms,
            self.delivery_max_ms,
            self.lag_events,
            self.effects_waiting,
            self.parked,
            self.errors
        )
    }
}

/// Looks until the time is over.
pub(crate) async fn watch(stack: &Stack, load: &Load, total: Duration, window: Duration) -> Vec<Sample> {
    let (http, began) = (stack.http(), Instant::now());
    let airstream = u32::try_from(stack.status()["pid"].as_u64().unwrap()).unwrap();
    let mut samples: Vec<Sample> = Vec::new();
    let mut ticks = tokio::time::interval_at((began + window).into(), window);
    while began.elapsed() < total {
        ticks.tick().await;
        let consumers = http.get("/v1/projections").await;
        let of = |key: &str| {
            let items = consumers["items"].as_array().unwrap();
            items.iter().filter_map(|item| item[key].as_u64()).collect::<Vec<_>>()
        };
        let counted = &load.counted;
        let answers = std::mem::take(&mut *counted.answers_ms.lock().unwrap());
        let deliveries = std::mem::take(&mut *counted.deliveries_ms.lock().unwrap());
        let below = children(airstream);
        let server = |name: &str| below.iter().find(|pid| command(**pid).contains(name)).copied();
        samples.push(Sample {
            seconds: began.elapsed().as_secs_f64(),
            airstream_mib: memory_mib(airstream, "VmRSS"),
            nats_mib: server("nats-server").map_or(0.0, |pid| memory_mib(pid, "VmRSS")),
            postgres_mib: server("postgres").map_or(0.0, |pid| {
                memory_mib(pid, "RssAnon")
                    + children(pid).into_iter().map(|pid| memory_mib(pid, "RssAnon")).sum::<f64>()
            }),
            commands: counted.commands.load(Ordering::Relaxed),
            runs: counted.runs.load(Ordering::Relaxed),
            answer_p50_ms: quantile(&answers, 0.5),
            answer_p99_ms: quantile(&answers, 0.99),
            delivery_p50_ms: quantile(&deliveries, 0.5),
            delivery_max_ms: quantile(&deliveries, 1.0),
            lag_events: of("lag_events").into_iter().max().unwrap_or_default(),
            effects_waiting: of("effects_scheduled").into_iter().sum(),
            parked: of("parked").into_iter().sum::<u64>() + of("effects_parked").into_iter().sum::<u64>(),
            errors: counted.errors.lock().unwrap().len() as u64,
        });
        if let Some(error) = counted.errors.lock().unwrap().first() {
            eprintln!("{error}");
        }
    }
    samples
}

/// Everything that was seen, for a spreadsheet.
pub(crate) fn write(folder: &Path, samples: &[Sample]) {
    std::fs::create_dir_all(folder).unwrap();
    let lines: Vec<String> = std::iter::once(HEADINGS.to_owned()).chain(samples.iter().map(Sample::line)).collect();
    std::fs::write(folder.join("samples.csv"), lines.join("\n") + "\n").unwrap();
}

/// The value that this share of the samples does not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
}

fn memory_mib(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

fn command(pid: u32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/exe"));
    link.map(|path| path.display().to_string()).unwrap_or_default()
}

/// Processes whose parent this is, whichever of its threads has started them.
fn children(pid: u32) -> Vec<u32> {
    let of = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |child: u32| {
        let stat = of(&format!("/proc/{child}/stat"));
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// A sample's value by its name, for the summary.
pub(crate) fn summary(values: &[f64]) -> Value {
    serde_json::json!({ "first": values.first(), "median": quantile(values, 0.5), "last": values.last(), "max": quantile(values, 1.0) })
}
