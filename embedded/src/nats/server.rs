//! One nats-server process: how it is started, and when it is ready.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use serde::Deserialize;

use super::configuration::{Configuration, Routes};
use super::{Account, Callout, as_server};
use crate::error::StartError;
use crate::find::Chosen;
use crate::progress::Child;
use crate::secrets::write_private;
use crate::state::{Process, StateFile};
use crate::supervise::Server;
use crate::users::RunAs;

/// With this many bytes free a server whose disk was full can write again: a few blocks of the log.
const ROOM: u64 = 32 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) monitor: u16,
}

#[derive(Clone)]
pub(super) struct NatsServer {
    pub(super) which: Child,
    pub(super) chosen: Chosen,
    pub(super) server_name: String,
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
    pub(super) run_as: Option<RunAs>,
    pub(super) sync_always: bool,
    pub(super) cluster: Option<Routes>,
    pub(super) accounts: Vec<Account>,
    pub(super) callout: Callout,
    pub(super) sys_password: String,
    /// Known after the first start; from then on they stay as they are.
    pub(super) ports: Arc<Mutex<Option<Ports>>>,
    pub(super) state: Arc<StateFile>,
}

impl NatsServer {
    pub(super) fn ports(&self) -> Option<Ports> {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_ports(&self, ports: Option<Ports>) {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    fn configuration(&self) -> Configuration {
        Configuration {
            server_name: self.server_name.clone(),
            ports: self.ports().map(|ports| (ports.client, ports.monitor)),
            folder: self.folder.clone(),
            sync_always: self.sync_always,
            cluster: self.cluster.clone(),
            accounts: self.accounts.clone(),
            callout: self.callout.clone(),
            sys_password: self.sys_password.clone(),
        }
    }

    fn read_ports(&self, pid: u32) -> Result<Ports, String> {
        #[derive(Deserialize)]
        struct PortsFile {
            nats: Vec<String>,
            monitoring: Vec<String>,
        }
        let ending = format!("_{pid}.ports");
        let entries = fs::read_dir(self.folder.join("ports")).map_err(|error| error.to_string())?;
        let file = entries.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(&ending));
        let file = file.ok_or("it has not written its ports yet")?;
        let text = fs::read(file.path()).map_err(|error| error.to_string())?;
        let found: PortsFile = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let port = |urls: &[String]| urls.first().and_then(|url| url.rsplit_once(':')?.1.parse::<u16>().ok());
        match (port(&found.nats), port(&found.monitoring)) {
            (Some(client), Some(monitor)) => Ok(Ports { client, monitor }),
            _ => Err("its ports file names no ports".to_owned()),
        }
    }
}

impl Server for NatsServer {
    fn which(&self) -> Child {
        self.which
    }

    fn command(&self) -> Result<Command, StartError> {
        self.chosen.verify()?;
        let ports = self.folder.join("ports");
        for entry in fs::read_dir(&ports).map_err(|error| StartError::io("read", &ports, error))?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let configuration = self.folder.join("server.conf");
        let text = format!("# Written at every start; changes are lost.\n{}", self.configuration().render());
        write_private(&configuration, text.as_bytes())
            .map_err(|error| StartError::io("write", &configuration, error))?;
        let mut command = Command::new(&self.chosen.path);
        command.arg("--config").arg(&configuration).current_dir(&self.folder);
        as_server(&mut command, &self.log, self.run_as.as_ref())?;
        if let Some(user) = &self.run_as {
            // Not through a link: the folder is the servers' and what is in it is theirs to replace.
            std::os::unix::fs::lchown(&configuration, Some(user.uid), Some(user.gid))
                .map_err(|error| StartError::io("change the owner of", &configuration, error))?;
        }
        Ok(command)
    }

    fn probe(&self, pid: u32) -> Result<(), String> {
        let ports = match self.ports() {
            Some(ports) => ports,
            None => self.read_ports(pid)?,
        };
        // On a remembered port another stack's server may answer while ours is failing to get it.
        let varz = http_get(ports.monitor, "/varz")?;
        let server_name = json_field(&varz, "/server_name").and_then(|name| name.as_str().map(str::to_owned));
        if server_name.as_deref() != Some(&self.server_name) {
            return Err("another server answers on its port".to_owned());
        }
        // One of a cluster is ready when it knows the leader: it may take long to catch up, and need not have to serve.
        http_get(ports.monitor, if self.cluster.is_some() { "/healthz?js-server-only=true" } else { "/healthz" })?;
        if self.sync_always {
            let jsz = http_get(ports.monitor, "/jsz")?;
            let always = json_field(&jsz, "/config/sync_always").and_then(|always| always.as_bool());
            if always != Some(true) {
                return Err("it does not sync always, although it was told to".to_owned());
            }
        }
        self.set_ports(Some(ports));
        Ok(())
    }

    fn stalled(&self) -> Option<String> {
        let ports = self.ports()?;
        let reason = http_get(ports.monitor, "/healthz").err().filter(|reason| reason.contains("write error"))?;
        // While the disk is full a restart would not even come back.
        let disk = statvfs(&self.folder).ok()?;
        let free = disk.blocks_available() as u64 * disk.fragment_size() as u64;
        (free >= ROOM).then_some(reason)
    }

    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn may_stay_away(&self) -> bool {
        // The others go on without it.
        self.cluster.is_some()
    }

    fn remember(&self, pid: Option<u32>) {
        let process = pid.map(|pid| Process::of(pid, &self.chosen.path));
        let written = self.state.update(|state| match self.which {
            Child::NatsPeer(number) => state.nats.peer(number).process = process,
            Child::Nats | Child::Postgres => state.nats.process = process,
        });
        if let Err(error) = written {
            tracing::warn!(%error, "could not write down the process of nats-server");
        }
    }
}

pub(super) fn json_field(body: &str, pointer: &str) -> Option<serde_json::Value> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.pointer(pointer).cloned()
}

/// One request to a loopback port; a status other than 200 is a reason to wait.
pub(super) fn http_get(port: u16, path: &str) -> Result<String, String> {
    let request = || -> io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4 * 1024 * 1024).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = request().map_err(|error| format!("{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split_whitespace().nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(format!("{path}: {body}")) }
}
