//! `<data_dir>/airstream.json`: where the running stack is and how to get in. Written when it is ready, removed when it stops.
//!
//! It holds passwords, so only its owner can read it. Its presence proves nothing (its writer may have been killed):
//! ask [`Running::is_alive`].

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::paths;
use crate::process::Process;

/// A running stack. Scripts read this as `airstream status --json`: fields may be added, none may change.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) http: String,
    pub(crate) nats: NatsLogin,
    /// For psql and for sqlx.
    pub(crate) postgres: String,
    pub(crate) tenant: String,
    pub(crate) principal: String,
    pub(crate) token: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) started_at: String,
    pub(crate) process: Process,
}

/// The development principal's way into NATS.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NatsLogin {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Running {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("airstream.json")
    }

    /// What is written down for this data directory, whether or not it is still true.
    pub(crate) fn read(data_dir: &Path) -> Outcome<Option<Running>> {
        let path = Running::path(data_dir);
        match std::fs::read(&path) {
            // A file of another version, or a damaged one, says as much as none.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => {
                let hint = "a stack can be used by the user who started it";
                Err(Failure::new(Exit::Auth, format!("could not read {}: {error}", path.display())).hint(hint))
            }
        }
    }

    /// The stack that runs in this data directory.
    pub(crate) fn alive(data_dir: &Path) -> Outcome<Option<Running>> {
        Ok(Running::read(data_dir)?.filter(Running::is_alive))
    }

    /// The stack that runs in this data directory, or a sentence how to start one.
    pub(crate) fn required(data_dir: &Path) -> Outcome<Running> {
        Running::alive(data_dir)?.ok_or_else(|| not_running(data_dir))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    pub(crate) fn write(&self, data_dir: &Path) -> Outcome {
        let path = Running::path(data_dir);
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure::because(Exit::Failed, &error))?;
        paths::write_private(&path, &text)
            .map_err(|error| Failure::new(Exit::Failed, format!("could not write {}: {error}", path.display())))
    }

    /// Forgets a stack. Best effort: a file that stays is seen through by its process.
    pub(crate) fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(Running::path(data_dir));
    }
}

pub(crate) fn not_running(data_dir: &Path) -> Failure {
    Failure::new(Exit::Unavailable, format!("no stack is running in {}", data_dir.display())).hint(
        "start one with `airstream up`, name another folder with --data-dir, or another server with --url and --token",
    )
}

/// Who holds the lock of a data directory according to `embedded`: a stack that is starting has no file of ours yet.
pub(crate) fn holder(data_dir: &Path) -> Option<Process> {
    let bytes = std::fs::read(data_dir.join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let holder: Process = serde_json::from_value(state.get("holder")?.clone()).ok()?;
    holder.is_alive().then_some(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_known_as_long_as_its_process_lives() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Running::required(folder.path()).err().map(|failure| failure.exit), Some(Exit::Unavailable));
        let process = Process::this();
        let mut running = Running {
            http: "http://127.0.0.1:1".to_owned(),
            nats: NatsLogin { url: "nats://x".to_owned(), user: "dev".to_owned(), password: "p".to_owned() },
            postgres: "postgres:///x".to_owned(),
            tenant: "dev".to_owned(),
            principal: "dev".to_owned(),
            token: "t".to_owned(),
            pid: process.pid,
            version: "0".to_owned(),
            data_dir: folder.path().to_owned(),
            logs: folder.path().join("log"),
            started_at: "2026-11-20T00:00:00Z".to_owned(),
            process,
        };
        running.write(folder.path()).unwrap();
        assert_eq!(Running::required(folder.path()).unwrap().token, "t");
        running.process.started = Some("1".to_owned());
        running.write(folder.path()).unwrap();
        assert!(Running::alive(folder.path()).unwrap().is_none());
        Running::remove(folder.path());
        assert!(Running::read(folder.path()).unwrap().is_none());
    }
}
