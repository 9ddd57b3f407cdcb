//! What this process takes: processor, memory, open files. Memory and files are told on Linux only.

use metrics::gauge;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use runtime::{clock, telemetry};

/// Notes the start.
pub(super) fn began() {
    gauge!(telemetry::PROCESS_START_TIME_SECONDS).set(clock::now().timestamp_micros() as f64 / 1e6);
}

/// Reads it all anew. What cannot be read keeps its last value.
pub(super) fn look() {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .iter()
            .sum::<f64>();
        gauge!(telemetry::PROCESS_CPU_SECONDS_TOTAL).set(seconds);
    }
    if let Some(bytes) = resident_bytes() {
        gauge!(telemetry::PROCESS_RESIDENT_MEMORY_BYTES).set(bytes as f64);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!(telemetry::PROCESS_OPEN_FDS).set(files.count() as f64);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        gauge!(telemetry::PROCESS_MAX_FDS).set(soft as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_test_takes_some_memory_but_not_all_of_it() {
        let bytes = super::resident_bytes().unwrap();
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }
}
