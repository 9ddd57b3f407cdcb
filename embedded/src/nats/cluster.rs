//! Three nats-servers that keep the log together: the loss of any one of them loses nothing and stops nothing.
//!
//! Each server has a folder, ports and a name of its own. They find each other by the ports of their routes, which have to
//! be known before the first one starts; all of them are looked for again if one is taken meanwhile.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::configuration::Routes;
use super::server::{NatsServer, Ports, http_get, json_field};
use super::{NatsMember, Start, is_free};
use crate::directory::{Directory, nats_peer};
use crate::doctor::{Finding, Status};
use crate::error::StartError;
use crate::logs;
use crate::progress::{Child, Progress};
use crate::state::{self, PeerState};
use crate::supervise::Supervisor;
use crate::wait;

/// Two servers are no better than one, and more than three on one machine prove nothing.
const SIZES: [usize; 2] = [1, 3];
/// Losing the race for a port this often in a row is not a race.
const TRIES: usize = 5;

/// How many servers to start in this folder.
pub(crate) fn size(directory: &Directory, asked: Option<usize>) -> Result<usize, StartError> {
    if let Some(asked) = asked.filter(|asked| !SIZES.contains(asked)) {
        return Err(StartError::BadOptions(format!("NATS runs as 1 server or as a cluster of 3, not of {asked}")));
    }
    match (made_with(directory.path()), asked) {
        (Some(made), Some(asked)) if made != asked => {
            Err(StartError::OtherSize { data_dir: directory.path().to_owned(), made, asked })
        }
        (made, asked) => Ok(made.or(asked).unwrap_or(1)),
    }
}

/// How many servers have data in a folder; `None` for a new one. The data itself tells: a note beside it could get lost.
fn made_with(data_dir: &Path) -> Option<usize> {
    let has_data = |folder: &Path| folder.join("jetstream").read_dir().is_ok_and(|mut found| found.next().is_some());
    let peers = (1..=3).any(|number| has_data(&nats_peer(data_dir, number)));
    if peers { Some(3) } else { has_data(&data_dir.join("nats")).then_some(1) }
}

impl Start<'_> {
    /// Starts all of them, like `lone` but for what makes each its own, and waits until they are one cluster.
    pub(super) fn cluster(
        &self,
        lone: &NatsServer,
        count: usize,
        route_password: &str,
    ) -> Result<Vec<(Supervisor, NatsMember)>, StartError> {
        let mut remembered = self.state.get().nats.peers;
        let mut tries = 0;
        loop {
            tries += 1;
            let ports = choose_ports(count, &remembered)?;
            match self.together(lone, &ports, route_password) {
                // Nobody has our addresses yet, so any others are as good.
                Err(StartError::PortTaken { .. }) if tries < TRIES => remembered.clear(),
                other => return other,
            }
        }
    }

    fn together(
        &self,
        lone: &NatsServer,
        ports: &[[u16; 3]],
        route_password: &str,
    ) -> Result<Vec<(Supervisor, NatsMember)>, StartError> {
        let mut servers = Vec::new();
        for (number, &[client, monitor, route]) in (1..).zip(ports) {
            let others = ports.iter().map(|ports| ports[2]).filter(|other| *other != route).collect();
            let (password, doors) = (route_password.to_owned(), self.options.nats_doors.clone());
            let server = NatsServer {
                which: Child::NatsPeer(number),
                server_name: format!("{}-{number}", lone.server_name),
                folder: self.directory.nats_peer(number),
                log: self.directory.log().join(format!("nats-{number}.log")),
                cluster: Some(Routes { cluster: lone.server_name.clone(), port: route, others, password, doors }),
                ports: Arc::new(Mutex::new(Some(Ports { client, monitor }))),
                ..lone.clone()
            };
            self.prepare(&server)?;
            servers.push((server, Ports { client, monitor }));
        }
        self.state.update(|state| {
            for (number, &[client, monitor, route]) in (1..).zip(ports) {
                let peer = state.nats.peer(number);
                (peer.port, peer.monitor_port, peer.route_port) = (Some(client), Some(monitor), Some(route));
            }
        })?;
        let started = Instant::now();
        // At once: none is ready before it knows a leader, and that takes a majority.
        let supervisors = thread::scope(|scope| {
            let starting: Vec<_> = servers
                .iter()
                .map(|(server, _)| {
                    (self.report)(&Progress::Starting { what: server.which });
                    scope.spawn(|| self.supervised(server))
                })
                .collect();
            let ended =
                starting.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // A taken port is the reason for the others' waiting in vain.
            let mut ended: Vec<_> = ended.collect();
            if let Some(taken) = ended.iter().position(|one| matches!(one, Err(StartError::PortTaken { .. }))) {
                ended.swap(0, taken);
            }
            ended.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        self.wait_until_current(&servers)?;
        let ready = servers.iter().map(|(server, ports)| self.ready(server, *ports, started));
        Ok(supervisors.into_iter().zip(ready).collect())
    }

    /// Every server follows the leader of JetStream's own group: now streams can be placed on all of them.
    fn wait_until_current(&self, servers: &[(NatsServer, Ports)]) -> Result<(), StartError> {
        let mut reason = String::new();
        let current = wait::until(self.options.start_timeout, || {
            let seen = servers.iter().find_map(|(server, ports)| followers(ports.monitor, &server.server_name));
            match seen {
                Some(followers)
                    if followers.len() + 1 == servers.len() && followers.values().all(|current| *current) =>
                {
                    Some(())
                }
                Some(followers) => {
                    reason = format!("not all follow the leader: {followers:?}");
                    None
                }
                None => {
                    reason = "no server says that it leads".to_owned();
                    None
                }
            }
        });
        match (current, servers.first()) {
            (None, Some((server, _))) => {
                let from = logs::length(&server.log);
                Err(StartError::server(server.which, "forming a cluster", reason, &server.log, from))
            }
            _ => Ok(()),
        }
    }
}

/// If this server leads JetStream's own group: who follows, and whether they are current.
fn followers(monitor: u16, server_name: &str) -> Option<BTreeMap<String, bool>> {
    let jsz = http_get(monitor, "/jsz").ok()?;
    let group = json_field(&jsz, "/meta_cluster")?;
    if group.get("leader").and_then(Value::as_str) != Some(server_name) {
        return None;
    }
    let replicas = group.get("replicas").and_then(Value::as_array)?;
    let named = |replica: &Value| {
        let name = replica.get("name")?.as_str()?.to_owned();
        let offline = replica.get("offline").and_then(Value::as_bool) == Some(true);
        Some((name, replica.get("current")?.as_bool()? && !offline))
    };
    Some(replicas.iter().filter_map(named).collect())
}

/// Client, monitor and route for each: those of last time if all are free, else any. Held until all are chosen, so that
/// none is chosen twice; from then until the servers have them it is a race.
fn choose_ports(count: usize, remembered: &[PeerState]) -> Result<Vec<[u16; 3]>, StartError> {
    let known = remembered.iter().filter_map(|peer| Some([peer.port?, peer.monitor_port?, peer.route_port?]));
    let known: Vec<[u16; 3]> = known.collect();
    if known.len() == count && known.iter().flatten().all(|port| is_free(*port)) {
        return Ok(known);
    }
    let failed = |source| StartError::Io { doing: "find a free port on 127.0.0.1".to_owned(), source };
    let mut held = Vec::new();
    let mut chosen = Vec::new();
    for _ in 0..count {
        let mut ports = [0; 3];
        for port in &mut ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
            *port = listener.local_addr().map_err(failed)?.port();
            held.push(listener);
        }
        chosen.push(ports);
    }
    Ok(chosen)
}

/// What the servers of a cluster say about themselves; empty for a folder without one.
pub(crate) fn findings(data_dir: &Path) -> Vec<Finding> {
    if made_with(data_dir) != Some(3) {
        return Vec::new();
    }
    let state = state::read(&data_dir.join("state.json"));
    let runs = state.nats.peers.iter().any(|peer| peer.process.is_some());
    (1..).zip(&state.nats.peers).map(|(number, peer)| finding(number, peer, runs)).collect()
}

fn finding(number: u8, peer: &PeerState, runs: bool) -> Finding {
    let name = Child::NatsPeer(number).to_string();
    let finding =
        |status, detail: String, hint: &str| Finding { name: name.clone(), status, detail, hint: hint.to_owned() };
    let (Some(port), Some(monitor)) = (peer.port, peer.monitor_port) else {
        return finding(Status::Warn, "has never been started".to_owned(), "");
    };
    let url = format!("nats://127.0.0.1:{port}");
    if !runs {
        return finding(Status::Ok, format!("{url} when it runs"), "");
    }
    let asked = || -> Result<String, String> {
        let varz = http_get(monitor, "/varz")?;
        let text = |pointer: &str| json_field(&varz, pointer).and_then(|found| found.as_str().map(str::to_owned));
        let version = text("/version").unwrap_or_default();
        http_get(monitor, "/healthz")?;
        let leads = text("/server_name").and_then(|name| followers(monitor, &name)).is_some();
        let path = peer.process.as_ref().map(|process| process.exe.display().to_string()).unwrap_or_default();
        let leads = if leads { ", leads the cluster" } else { "" };
        Ok(format!("{version} {path} {url}{leads}"))
    };
    match asked() {
        Ok(detail) => finding(Status::Ok, detail, ""),
        Err(reason) => finding(
            Status::Warn,
            format!("{url} is not healthy: {reason}"),
            "the other two go on; its log is `airstream logs nats`; it is started again by itself",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_all_different_and_kept_while_they_are_free() {
        let ports = choose_ports(3, &[]).unwrap();
        let mut all: Vec<u16> = ports.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
        let peer = |ports: &[u16; 3]| PeerState {
            port: Some(ports[0]),
            monitor_port: Some(ports[1]),
            route_port: Some(ports[2]),
            ..PeerState::default()
        };
        let remembered: Vec<PeerState> = ports.iter().map(peer).collect();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[1][2])).unwrap();
        assert_ne!(choose_ports(3, &remembered).unwrap(), ports, "a taken port was chosen again");
        drop(taken);
        assert_eq!(choose_ports(3, &remembered).unwrap(), ports);
    }
}
