//! `state.json`: what ran here last, so that the next start finds its ports again and its leftovers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::leftovers;
use crate::secrets::write_private;

/// What ran here last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Tells this folder's NATS server from any other that may answer on a remembered port.
    pub(crate) instance: String,
    /// Who holds the lock; stays after the end, which is why the lock decides and not this.
    pub(crate) holder: Option<Process>,
    pub(crate) nats: NatsState,
    pub(crate) postgres: PostgresState,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NatsState {
    pub(crate) process: Option<Process>,
    pub(crate) port: Option<u16>,
    pub(crate) monitor_port: Option<u16>,
    /// The version that wrote the store last.
    pub(crate) version: Option<String>,
    /// The servers of a cluster, in the order of their numbers.
    pub(crate) peers: Vec<PeerState>,
}

impl NatsState {
    /// The server of a cluster with this number, from 1.
    pub(crate) fn peer(&mut self, number: u8) -> &mut PeerState {
        let index = usize::from(number.max(1)) - 1;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, PeerState::default);
        }
        &mut self.peers[index]
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PeerState {
    pub(crate) process: Option<Process>,
    pub(crate) port: Option<u16>,
    pub(crate) monitor_port: Option<u16>,
    pub(crate) route_port: Option<u16>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PostgresState {
    pub(crate) process: Option<Process>,
    pub(crate) version: Option<String>,
}

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// When it started, in the operating system's own notation.
    pub(crate) started: Option<String>,
    /// Its executable.
    pub(crate) exe: PathBuf,
}

impl Process {
    pub(crate) fn of(pid: u32, exe: &Path) -> Process {
        Process { pid, started: leftovers::start_time(pid), exe: exe.to_owned() }
    }
}

/// The file and its content.
pub(crate) struct StateFile {
    path: PathBuf,
    state: Mutex<State>,
}

impl StateFile {
    /// A file that is missing or cannot be parsed counts as empty: everything in it can be found out anew.
    pub(crate) fn load(path: &Path) -> StateFile {
        StateFile { path: path.to_owned(), state: Mutex::new(read(path)) }
    }

    pub(crate) fn get(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the state and writes it down.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), StartError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let text = serde_json::to_vec_pretty(&*state).unwrap_or_default();
        write_private(&self.path, &text).map_err(|error| StartError::io("write", &self.path, error))
    }
}

/// The state as another process has written it down.
pub(crate) fn read(path: &Path) -> State {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
