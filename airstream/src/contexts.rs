//! Where somebody is signed in: servers by name, with the tokens of a session, in `contexts.json` (0600) of the user's
//! configuration folder.
//!
//! One of them is the current one. A local stack's own token is what counts as long as nobody has signed in to it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::paths;

/// Every context.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Store {
    /// Which one is meant when none is named.
    #[serde(default)]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Saved>,
}

/// A server, and who we are there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Its address; none: the stack in `data_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Session>,
}

/// A session. Its debug print shows no token.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Whose, for people.
    pub(crate) user: String,
    pub(crate) tenant: Option<String>,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    /// Seconds since 1970 at which the access token ends.
    pub(crate) expires_at: i64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("user", &self.user).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Saved {
    /// What it stands for, in a word.
    pub(crate) fn place(&self) -> String {
        match (&self.url, &self.data_dir) {
            (Some(url), _) => url.clone(),
            (None, Some(data_dir)) => format!("local stack in {}", data_dir.display()),
            (None, None) => "-".to_owned(),
        }
    }
}

fn folder() -> Outcome<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let folder = folder.ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no place for sessions: neither XDG_CONFIG_HOME nor HOME is set")
    })?;
    Ok(folder.join("airstream"))
}

/// The contexts as they are. A machine without any is no failure.
pub(crate) fn load() -> Outcome<Store> {
    let Ok(folder) = folder() else { return Ok(Store::default()) };
    read(&folder.join("contexts.json"))
}

fn read(path: &Path) -> Outcome<Store> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} cannot be read: {error}", path.display()))
                .hint("remove it and log in again")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Store::default()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("could not read {}: {error}", path.display()))),
    }
}

/// The contexts, held so that no other process of ours changes them meanwhile.
pub(crate) struct Held {
    pub(crate) store: Store,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Held {
    /// Waits for its turn.
    pub(crate) fn take() -> Outcome<Held> {
        let folder = folder()?;
        let failed =
            |error: io::Error| Failure::new(Exit::Failed, format!("could not use {}: {error}", folder.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let lock = File::create(folder.join("contexts.lock")).map_err(failed)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| failed(error.into()))?;
        let path = folder.join("contexts.json");
        Ok(Held { store: read(&path)?, path, _lock: lock })
    }

    /// Keeps what has been changed.
    pub(crate) fn keep(&self) -> Outcome {
        let text = serde_json::to_vec_pretty(&self.store).map_err(|error| Failure::because(Exit::Failed, &error))?;
        paths::write_private(&self.path, &text)
            .map_err(|error| Failure::new(Exit::Failed, format!("could not write {}: {error}", self.path.display())))
    }
}

/// Changes the contexts.
pub(crate) fn change<T>(how: impl FnOnce(&mut Store) -> Outcome<T>) -> Outcome<T> {
    let mut held = Held::take()?;
    let done = how(&mut held.store)?;
    held.keep()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_not_printed() {
        let session = Session {
            user: "ann".into(),
            tenant: None,
            access_token: "secret-a".into(),
            refresh_token: "secret-r".into(),
            expires_at: 0,
        };
        assert!(!format!("{session:?}").contains("secret"));
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.json");
        assert_eq!(read(&path).unwrap(), Store::default());
        fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().hint.unwrap().contains("log in again"));
    }
}
