//! `<data_dir>/airstream.json`: where the running stack is and how to get in. Written when it is ready, removed when it stops.
//!
//! It holds passwords, so only its owner can read it. Its presence proves nothing (its writer may have been killed, or the
//! folder is a copy of one where a stack runs): ask [`Running::alive`].

use std::fs::{File, TryLockError};
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
    /// Where each of our own NATS servers is: one, or those of a cluster.
    #[serde(default)]
    pub(crate) nats_servers: Vec<String>,
    /// Where mails are shown that a mail server would have sent.
    #[serde(default)]
    pub(crate) mailbox: Option<String>,
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
    /// What its clients have to be given as their inbox prefix: answers go nowhere else.
    #[serde(default)]
    pub(crate) inbox_prefix: String,
    /// Who may read the log; `None` on somebody else's server.
    #[serde(default)]
    pub(crate) reader: Option<ReaderLogin>,
}

/// The way into NATS for looking at the log.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ReaderLogin {
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
                let hint = "the folder is another user's: own it, or name a folder of your own with --data-dir";
                Err(Failure::new(Exit::Auth, format!("could not read {}: {error}", path.display())).hint(hint))
            }
        }
    }

    /// The stack that runs in this data directory.
    pub(crate) fn alive(data_dir: &Path) -> Outcome<Option<Running>> {
        Ok(Running::read(data_dir)?.filter(|running| running.is_alive() && running.is_of(data_dir)))
    }

    /// The stack that runs in this data directory, or a sentence how to start one.
    pub(crate) fn required(data_dir: &Path) -> Outcome<Running> {
        Running::alive(data_dir)?.ok_or_else(|| not_running(data_dir))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// False for a file that came here with a copy of its folder: its stack is somebody else's business.
    fn is_of(&self, data_dir: &Path) -> bool {
        let there = self.data_dir.canonicalize();
        there.is_ok() && there.ok() == data_dir.canonicalize().ok()
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

fn not_running(data_dir: &Path) -> Failure {
    Failure::new(Exit::Unavailable, nothing_runs(data_dir)).hint(
        "start one with `airstream up`, name another folder with --data-dir, or another server with --url and --token",
    )
}

/// That nothing runs here, and whose file lies here if it is not ours.
pub(crate) fn nothing_runs(data_dir: &Path) -> String {
    let sentence = format!("no stack is running in {}", data_dir.display());
    match Running::read(data_dir) {
        Ok(Some(found)) if found.is_alive() && !found.is_of(data_dir) => {
            format!("{sentence}: its airstream.json is about process {} in {}", found.pid, found.data_dir.display())
        }
        _ => sentence,
    }
}

/// Who holds the lock of a data directory according to `embedded`: a stack that is starting has no file of ours yet.
pub(crate) fn holder(data_dir: &Path) -> Option<Process> {
    let bytes = std::fs::read(data_dir.join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let holder: Process = serde_json::from_value(state.get("holder")?.clone()).ok()?;
    (holder.is_alive() && is_locked(data_dir)).then_some(holder)
}

/// A copied `state.json` names a holder, too; a lock does not come along.
fn is_locked(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if this very process were a stack in this folder.
    fn running(data_dir: &Path) -> Running {
        let process = Process::this();
        Running {
            http: "http://127.0.0.1:1".to_owned(),
            nats: NatsLogin {
                url: "nats://x".to_owned(),
                user: "dev".to_owned(),
                password: "p".to_owned(),
                inbox_prefix: "_INBOX.dev.dev".to_owned(),
                reader: None,
            },
            nats_servers: Vec::new(),
            mailbox: None,
            postgres: "postgres:///x".to_owned(),
            tenant: "dev".to_owned(),
            principal: "dev".to_owned(),
            token: "t".to_owned(),
            pid: process.pid,
            version: "0".to_owned(),
            data_dir: data_dir.to_owned(),
            logs: data_dir.join("log"),
            started_at: "2026-11-20T00:00:00Z".to_owned(),
            process,
        }
    }

    #[test]
    fn a_stack_is_known_as_long_as_its_process_lives() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Running::required(folder.path()).err().map(|failure| failure.exit), Some(Exit::Unavailable));
        let mut running = running(folder.path());
        running.write(folder.path()).unwrap();
        assert_eq!(Running::required(folder.path()).unwrap().token, "t");
        running.process.started = Some("1".to_owned());
        running.write(folder.path()).unwrap();
        assert!(Running::alive(folder.path()).unwrap().is_none());
        Running::remove(folder.path());
        assert!(Running::read(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_copied_file_is_not_believed() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        running(original.path()).write(original.path()).unwrap();
        std::fs::copy(Running::path(original.path()), Running::path(copy.path())).unwrap();
        let link = copy.path().join("link");
        std::os::unix::fs::symlink(original.path(), &link).unwrap();
        assert!(Running::alive(&link).unwrap().is_some(), "the same folder by another name");
        assert!(Running::alive(copy.path()).unwrap().is_none());
        let said = Running::required(copy.path()).err().unwrap().message;
        assert!(
            said.contains(&format!("is about process {} in {}", std::process::id(), original.path().display())),
            "{said}"
        );
    }

    #[test]
    fn a_holder_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let state = serde_json::json!({"holder": Process::this()});
        std::fs::write(folder.path().join("state.json"), state.to_string()).unwrap();
        assert_eq!(holder(folder.path()), None);
        let lock = File::create(folder.path().join("lock")).unwrap();
        assert_eq!(holder(folder.path()), None);
        lock.lock().unwrap();
        assert_eq!(holder(folder.path()), Some(Process::this()));
    }
}
