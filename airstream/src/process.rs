//! Processes, told apart from later ones with the same number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// When it started, in the operating system's own notation; only good for comparing.
    pub(crate) started: Option<String>,
    pub(crate) exe: PathBuf,
}

impl Process {
    /// This process.
    pub(crate) fn this() -> Process {
        let pid = std::process::id();
        Process { pid, started: start_time(pid), exe: std::env::current_exe().unwrap_or_default() }
    }

    /// Whether exactly this process is still there.
    pub(crate) fn is_alive(&self) -> bool {
        let same_start = self.started.is_some() && start_time(self.pid) == self.started;
        // After a reboot another process may have both numbers.
        same_start && executable(self.pid).is_none_or(|exe| same_program(&exe, &self.exe))
    }

    /// Sends a signal if it is still there.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), nix::errno::Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        match i32::try_from(self.pid) {
            Ok(pid) => kill(Pid::from_raw(pid), signal),
            Err(_) => Ok(()),
        }
    }

    /// Waits until it is gone; false when it is still there after `patience`.
    pub(crate) async fn wait_until_gone(&self, patience: Duration) -> bool {
        let gone = async {
            while self.is_alive() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(patience, gone).await.is_ok()
    }
}

/// Lets this process have so many files and sockets open, as far as it may say so itself; gives how many it may have.
pub(crate) fn allow_files(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let allowed = wanted.min(hard).max(soft);
    if allowed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, allowed, hard)?;
    }
    Ok(allowed)
}

/// By name: the file may have been replaced by a newer build since the process started.
fn same_program(running: &Path, written_down: &Path) -> bool {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
    name(running) == name(written_down)
}

fn executable(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// `None` if there is no such process.
fn start_time(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may itself contain spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let us = Process::this();
        assert!(us.is_alive());
        assert!(!Process { started: Some("1".to_owned()), ..us.clone() }.is_alive());
        assert!(!Process { started: None, ..us.clone() }.is_alive());
        assert!(!Process { exe: PathBuf::from("/bin/other"), ..us }.is_alive() || !cfg!(target_os = "linux"));
        assert!(same_program(Path::new("/a/airstream (deleted)"), Path::new("/b/airstream")));
    }
}
