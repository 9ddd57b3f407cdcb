//! What it was measured on.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::place::Place;

/// Facts about the machine and the servers, gathered while measuring.
pub(super) struct Machine(Value);

impl Machine {
    /// What can be told before anything has started.
    pub(super) fn look() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
        Self(json!({
            "airstream": env!("CARGO_PKG_VERSION"),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "cores": cores,
            "processor": line_of("/proc/cpuinfo", "model name"),
            "memory_mib": kib_of("/proc/meminfo", "MemTotal").map(|kib| kib / 1024),
            "kernel": read("/proc/sys/kernel/osrelease"),
            "measured_at": runtime::clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            "load_before": load(),
        }))
    }

    /// What the servers of a measurement add: their versions, and how fast their disk is.
    pub(super) fn met(&mut self, place: &Place) -> anyhow::Result<()> {
        let fsyncs = match place.folder() {
            Some(folder) if self.0.get("fsyncs_per_second").is_none() => Some(fsyncs_per_second(folder)?),
            _ => None,
        };
        if let Some(facts) = self.0.as_object_mut() {
            facts.extend(place.facts());
            if let Some(fsyncs) = fsyncs {
                facts.insert("fsyncs_per_second".to_owned(), fsyncs.round().into());
            }
        }
        Ok(())
    }

    /// Everything. The load says who else was there.
    pub(super) fn finished(mut self) -> Value {
        if let Some(facts) = self.0.as_object_mut() {
            facts.insert("load_after".to_owned(), load());
        }
        self.0
    }
}

/// As `pg_test_fsync` does it: one block of 8 KiB, written to the same place and flushed, over and over.
fn fsyncs_per_second(folder: &Path) -> anyhow::Result<f64> {
    const TIME: Duration = Duration::from_millis(500);
    let failed = || format!("could not measure how fast the disk of {} flushes", folder.display());
    let mut file = tempfile::tempfile_in(folder).with_context(failed)?;
    let block = [0x5a_u8; 8 * 1024];
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&block)).with_context(failed)?;
        file.sync_data().with_context(failed)?;
        done += 1;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

/// Resident memory of a process in MiB, now and at its highest.
pub(super) fn resident_mib(pid: u32) -> Option<(f64, f64)> {
    let status = format!("/proc/{pid}/status");
    let mib = |name| kib_of(&status, name).map(|kib| kib as f64 / 1024.0);
    Some((mib("VmRSS")?, mib("VmHWM")?))
}

/// Resident memory of a process and of all below it, in MiB: Postgres is many processes. Memory that they share is
/// counted once (PSS).
pub(super) fn resident_with_children_mib(pid: u32) -> Option<f64> {
    let own = kib_of(&format!("/proc/{pid}/smaps_rollup"), "Pss")? as f64 / 1024.0;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|child| resident_with_children_mib(child.parse().ok()?));
    Some(own + below.sum::<f64>())
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn line_of(path: &str, name: &str) -> Option<String> {
    let text = read(path)?;
    let (_, value) = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?;
    Some(value.trim().to_owned())
}

fn kib_of(path: &str, name: &str) -> Option<u64> {
    line_of(path, name)?.strip_suffix("kB")?.trim().parse().ok()
}

fn load() -> Value {
    let text = read("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).filter_map(|number| number.parse::<f64>().ok()).collect()
}
