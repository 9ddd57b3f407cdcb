//! Servers of a parent that was killed. On Linux they are on their way out already; elsewhere they run on.
//!
//! A process counts as ours if number and start time are those written down, or if it is a server whose working
//! directory is one of this folder's. Both are called under the folder's lock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::state::Process;
use crate::wait;

/// How long a leftover may take to end by itself: PostgreSQL writes a checkpoint first.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a process started, in a notation that is only good for comparing. `None` if there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may itself contain spaces and parentheses.
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_whitespace();
        // A zombie is no longer anybody; its parent just has not looked yet.
        if fields.next()? == "Z" {
            return None;
        }
        return fields.nth(18).map(str::to_owned);
    }
    let output = std::process::Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Whether this very process lives, not another one with its number.
pub(crate) fn still_there(process: &Process) -> bool {
    process.started.is_some() && start_time(process.pid) == process.started
}

/// Every server process at work in `folder`: what is written down, and on Linux what is found there.
pub(crate) fn at_work_in(folder: &Path, written_down: Option<&Process>) -> Vec<Process> {
    let mut found = found_in_proc(folder);
    if let Some(process) = written_down
        && still_there(process)
        // After a reboot another process may have both numbers.
        && executable(process.pid).is_none_or(|exe| exe.file_name() == process.exe.file_name())
        && !found.iter().any(|other| other.pid == process.pid)
    {
        found.push(process.clone());
    }
    found
}

fn executable(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn found_in_proc(folder: &Path) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if std::fs::read_link(entry.path().join("cwd")).ok().as_deref() != Some(folder) {
            continue;
        }
        // Somebody's shell may have this working directory too.
        let Some(exe) = executable(pid) else { continue };
        let name = exe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if ["postgres", "nats-server"].contains(&name.trim_end_matches(" (deleted)")) {
            found.push(Process::of(pid, &exe));
        }
    }
    found
}

/// Ends processes: the signal first, SIGKILL when patience has run out. Returns how many there were.
pub(crate) fn stop(folder: &Path, written_down: Option<&Process>, signal: Signal) -> usize {
    let found = at_work_in(folder, written_down);
    if found.is_empty() {
        return 0;
    }
    send(&found, signal);
    if !wait_until_gone(&found, PATIENCE) {
        kill_all(folder, written_down);
    }
    found.len()
}

/// Ends processes at once. For what is left of a server that has already crashed.
pub(crate) fn kill_all(folder: &Path, written_down: Option<&Process>) {
    let found = at_work_in(folder, written_down);
    send(&found, Signal::SIGKILL);
    wait_until_gone(&found, Duration::from_secs(5));
}

fn send(processes: &[Process], signal: Signal) {
    for process in processes {
        if still_there(process) {
            let pid = Pid::from_raw(process.pid as i32);
            let _ = kill(pid, signal);
            // A paused process would not notice.
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

fn wait_until_gone(processes: &[Process], patience: Duration) -> bool {
    wait::until(patience, || (!processes.iter().any(still_there)).then_some(())).is_some()
}

/// Removes a file with which PostgreSQL marks a cluster or a socket as taken, when its owner is gone.
/// PostgreSQL does this itself, unless another process has got the same number since, which happens after a reboot
/// and in containers.
pub(crate) fn remove_stale_pid_file(cluster: &Path, pid_file: &Path) {
    if pid_file.exists() && cfg!(target_os = "linux") && at_work_in(cluster, None).is_empty() {
        let _ = std::fs::remove_file(pid_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let us = Process::of(std::process::id(), Path::new("x"));
        assert!(still_there(&us));
        let other = Process { started: Some("1".to_owned()), ..us };
        assert!(!still_there(&other));
    }
}
