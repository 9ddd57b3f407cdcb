//! nats-server: its configuration, its addresses, and when it is ready.

mod cluster;
mod configuration;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::signal::Signal;
use nkeys::{KeyPair, KeyPairType};

use crate::directory::Directory;
use crate::error::StartError;
use crate::find::{Chosen, Version};
use crate::leftovers;
use crate::logs;
use crate::options::{NatsAccount, NatsUser, Options};
use crate::progress::{Child, Progress, Report};
use crate::secrets::Secrets;
use crate::state::StateFile;
use crate::supervise::{Failures, Supervisor};
use crate::users::RunAs;

use server::{NatsServer, Ports};

pub(crate) use cluster::findings;
pub use configuration::example_cluster;

/// The user that may do everything in the platform's account.
const INTERNAL_USER: &str = "airstream";
/// The user that may do everything in the tenants' account.
const DOOR_USER: &str = "airstream-door";
/// The user that is asked who somebody is.
const CALLOUT_USER: &str = "airstream-callout";
/// The platform's account, with the log.
const APP: &str = "APP";
/// The account of everybody else. It has no streams, and shares no subject with any other account.
const TENANTS: &str = "TENANTS";
/// The account in which servers ask who somebody is.
const AUTH: &str = "AUTH";

/// How to connect to NATS. `Debug` leaves the passwords out.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    /// `nats://127.0.0.1:<port>`, for a cluster all of them with commas between; or the URL that was given.
    pub url: String,
    /// The user that may do everything in account `APP`; `None` for an external server, whose URL says it all.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// `http://127.0.0.1:<port>` with `/healthz`, `/varz`, `/jsz`, of a cluster's first one; `None` for an external server.
    pub monitor_url: Option<String>,
    /// Every server of ours: one, or three for a cluster; empty for an external one.
    pub servers: Vec<NatsMember>,
    /// Passwords of [`Options::nats_users`] and of `sys`, by name.
    pub users: BTreeMap<String, String>,
    /// The way to the account of everybody else; `None` for an external server.
    pub tenants: Option<NatsTenants>,
    /// Its version; `None` for an external server.
    pub version: Option<String>,
}

/// The account in which tenants' programs are, and how the servers are told who may come in there.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsTenants {
    /// The account's name.
    pub account: String,
    /// The user that may do everything there: the platform's doors are its subscriptions.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The user in the account in which the servers ask who somebody is.
    pub callout_user: String,
    /// Its password.
    pub callout_password: String,
    /// The seed of the account key that signs the answers.
    pub callout_seed: String,
}

/// Without the secrets.
impl fmt::Debug for NatsTenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTenants").field("account", &self.account).field("user", &self.user).finish_non_exhaustive()
    }
}

/// One server of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsMember {
    /// Which one.
    pub child: Child,
    /// `nats://127.0.0.1:<port>`
    pub url: String,
    /// `http://127.0.0.1:<port>`
    pub monitor_url: String,
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL of an external server may contain a password.
        let url = if self.user.is_some() { &self.url } else { "(external)" };
        f.debug_struct("NatsAddress").field("url", &url).field("user", &self.user).finish_non_exhaustive()
    }
}

impl NatsAddress {
    pub(crate) fn external(url: String) -> NatsAddress {
        NatsAddress {
            url,
            user: None,
            password: None,
            monitor_url: None,
            servers: Vec::new(),
            users: BTreeMap::new(),
            tenants: None,
            version: None,
        }
    }
}

/// The user that may do everything, with its password, of the private server that runs or has run in a stack's folder. `None`
/// where there is no such server, or its passwords are not ours to read.
pub fn nats_login(data_dir: &Path) -> Option<(String, String)> {
    let mut secrets = Secrets::load(&Directory::secrets_in(data_dir)).ok()?;
    let name = format!("nats/{INTERNAL_USER}");
    let password = secrets.knows(&name).then(|| secrets.password(&name).ok())??;
    Some((INTERNAL_USER.to_owned(), password))
}

/// One account, with the passwords of its users by their full names.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// Whether it may have streams.
    pub(crate) jetstream: bool,
    /// Whether doors stand there.
    pub(crate) doors: bool,
    /// The user that may do everything, and its password.
    pub(crate) internal: (String, String),
    /// The other users: the name in [`NatsUser`], the full name, the password.
    pub(crate) users: Vec<(NatsUser, String, String)>,
}

/// How servers learn who somebody is that is not in their configuration.
#[derive(Debug, Clone)]
pub(crate) struct Callout {
    pub(crate) account: &'static str,
    pub(crate) user: &'static str,
    pub(crate) password: String,
    /// The public key that belongs to the seed.
    pub(crate) issuer: String,
    pub(crate) seed: String,
}

impl Callout {
    pub(crate) fn of(issuer: String, seed: String, password: String) -> Callout {
        Callout { account: AUTH, user: CALLOUT_USER, password, issuer, seed }
    }
}

/// A running NATS with the ways to it.
pub(crate) struct Nats {
    pub(crate) address: NatsAddress,
    /// `T00`, `T01`, …
    pub(crate) test_accounts: Vec<Account>,
    /// One, or one per server of a cluster.
    pub(crate) supervisors: Vec<Supervisor>,
}

/// Starts NATS on the ports it had last time, if they are still free: one server, or a cluster.
pub(crate) fn start(
    options: &Options,
    chosen: Chosen,
    directory: &Directory,
    state: &Arc<StateFile>,
    secrets: &Mutex<Secrets>,
    failures: &Failures,
    report: &Report,
) -> Result<Nats, StartError> {
    let before = state.get();
    let count = cluster::size(directory, options.nats_servers)?;
    refuse_downgrade(directory, before.nats.version.as_deref(), chosen.version)?;
    let (accounts, callout, sys_password, route_password) = {
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = make_accounts(options, &mut secrets)?;
        (accounts, make_callout(&mut secrets)?, secrets.password("nats/sys")?, secrets.password("nats/route")?)
    };
    let sync_always = options.nats_sync_always && !options.ephemeral;
    if !sync_always {
        let text = "acknowledged events may be lost in a power cut: the server does not wait for the disk".to_owned();
        report(&Progress::Notice { what: Child::Nats, text });
    }
    let lone = NatsServer {
        which: Child::Nats,
        server_name: format!("airstream-{}", before.instance),
        folder: directory.nats(),
        log: directory.log().join("nats.log"),
        run_as: directory.run_as().cloned(),
        sync_always,
        cluster: None,
        accounts: accounts.clone(),
        callout: callout.clone(),
        sys_password: sys_password.clone(),
        ports: Arc::default(),
        state: state.clone(),
        chosen: chosen.clone(),
    };
    let start = Start { directory, state, failures, report, options };
    let running = match count {
        1 => vec![start.one(lone)?],
        _ => start.cluster(&lone, count, &route_password)?,
    };
    state.update(|state| state.nats.version = Some(chosen.version_text()))?;
    let (supervisors, servers): (Vec<_>, Vec<_>) = running.into_iter().unzip();
    let mut accounts = accounts.into_iter();
    let (app, tenants) = (accounts.next(), accounts.next());
    let mut users: BTreeMap<String, String> = app
        .iter()
        .chain(&tenants)
        .flat_map(|account| &account.users)
        .map(|(user, _, password)| (user.name.clone(), password.clone()))
        .collect();
    users.insert("sys".to_owned(), sys_password);
    let (user, password) = app.map(|account| account.internal).unzip();
    let tenants = tenants.map(|tenants| NatsTenants {
        account: tenants.name,
        user: tenants.internal.0,
        password: tenants.internal.1,
        callout_user: callout.user.to_owned(),
        callout_password: callout.password,
        callout_seed: callout.seed,
    });
    let urls: Vec<&str> = servers.iter().map(|server: &NatsMember| server.url.as_str()).collect();
    let address = NatsAddress {
        url: urls.join(","),
        user,
        password,
        monitor_url: servers.first().map(|server| server.monitor_url.clone()),
        servers,
        users,
        tenants,
        version: Some(chosen.version_text()),
    };
    Ok(Nats { address, test_accounts: accounts.collect(), supervisors })
}

/// What a start needs besides the server.
struct Start<'a> {
    directory: &'a Directory,
    state: &'a StateFile,
    failures: &'a Failures,
    report: &'a Report,
    options: &'a Options,
}

impl Start<'_> {
    /// Folders and log, before the first process.
    fn prepare(&self, server: &NatsServer) -> Result<(), StartError> {
        for folder in [server.folder.clone(), server.folder.join("jetstream"), server.folder.join("ports")] {
            self.directory.make_for_servers(&folder)?;
        }
        logs::rotate(&server.log).map_err(|error| StartError::io("rotate", &server.log, error))
    }

    fn supervised(&self, server: &NatsServer) -> Result<Supervisor, StartError> {
        Supervisor::start(Box::new(server.clone()), self.options, self.failures.clone())
    }

    fn one(&self, server: NatsServer) -> Result<(Supervisor, NatsMember), StartError> {
        self.prepare(&server)?;
        let before = self.state.get().nats;
        let remembered = match (before.port, before.monitor_port) {
            (Some(client), Some(monitor)) if is_free(client) && is_free(monitor) => Some(Ports { client, monitor }),
            _ => None,
        };
        server.set_ports(remembered);
        (self.report)(&Progress::Starting { what: server.which });
        let started = Instant::now();
        let supervisor = match self.supervised(&server) {
            // Somebody took the port between our look and the start. Nobody has our address yet, so any other is as good.
            Err(StartError::PortTaken { .. }) if remembered.is_some() => {
                server.set_ports(None);
                self.supervised(&server)?
            }
            other => other?,
        };
        let ports = ports_of(&server)?;
        self.state.update(|state| {
            state.nats.port = Some(ports.client);
            state.nats.monitor_port = Some(ports.monitor);
        })?;
        Ok((supervisor, self.ready(&server, ports, started)))
    }

    fn ready(&self, server: &NatsServer, ports: Ports, started: Instant) -> NatsMember {
        let url = format!("nats://127.0.0.1:{}", ports.client);
        (self.report)(&Progress::Ready { what: server.which, address: url.clone(), took: started.elapsed() });
        NatsMember { child: server.which, url, monitor_url: format!("http://127.0.0.1:{}", ports.monitor) }
    }
}

fn ports_of(server: &NatsServer) -> Result<Ports, StartError> {
    server.ports().ok_or_else(|| StartError::BadOptions("nats-server is ready and has no ports".to_owned()))
}

/// 2.12 and later take what a newer minor version has written offline instead of reading it.
fn refuse_downgrade(directory: &Directory, stored: Option<&str>, found: Version) -> Result<(), StartError> {
    let Some(stored) = stored else { return Ok(()) };
    match Version::parse(stored) {
        Some(version) if (version.major, version.minor) > (found.major, found.minor) => Err(StartError::Downgrade {
            data_dir: directory.path().to_owned(),
            stored: stored.to_owned(),
            found: format!("{}.{}.{}", found.major, found.minor, found.patch),
        }),
        _ => Ok(()),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// `APP` and `TENANTS` first, then the test accounts. User names are unique in a server, so those of test accounts get a
/// prefix.
fn make_accounts(options: &Options, secrets: &mut Secrets) -> Result<Vec<Account>, StartError> {
    for user in &options.nats_users {
        check_user(user)?;
    }
    let mut password = |user: &str| secrets.password(&format!("nats/{user}"));
    let mut accounts = own_accounts(&options.nats_users, &mut password)?;
    for number in 0..options.accounts {
        let prefix = format!("t{number:02}");
        let internal = (prefix.clone(), password(&prefix)?);
        let users = users(&options.nats_users, NatsAccount::Platform, &format!("{prefix}-"), &mut password)?;
        accounts.push(Account { name: format!("T{number:02}"), jetstream: true, doors: true, internal, users });
    }
    Ok(accounts)
}

/// The platform's account and the tenants'.
fn own_accounts(
    wanted: &[NatsUser],
    mut password: impl FnMut(&str) -> Result<String, StartError>,
) -> Result<Vec<Account>, StartError> {
    let app = Account {
        name: APP.to_owned(),
        jetstream: true,
        doors: false,
        internal: (INTERNAL_USER.to_owned(), password(INTERNAL_USER)?),
        users: users(wanted, NatsAccount::Platform, "", &mut password)?,
    };
    let tenants = Account {
        name: TENANTS.to_owned(),
        jetstream: false,
        doors: true,
        internal: (DOOR_USER.to_owned(), password(DOOR_USER)?),
        users: users(wanted, NatsAccount::Tenants, "", &mut password)?,
    };
    Ok(vec![app, tenants])
}

fn users(
    wanted: &[NatsUser],
    account: NatsAccount,
    prefix: &str,
    mut password: impl FnMut(&str) -> Result<String, StartError>,
) -> Result<Vec<(NatsUser, String, String)>, StartError> {
    let here = wanted.iter().filter(|user| user.account == account);
    let with_password = here.map(|user| {
        let full = format!("{prefix}{}", user.name);
        let password = password(&full)?;
        Ok((user.clone(), full, password))
    });
    with_password.collect()
}

fn make_callout(secrets: &mut Secrets) -> Result<Callout, StartError> {
    let seed = secrets.made("nats/callout-seed", || {
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let pair = KeyPair::new_from_raw(KeyPairType::Account, random).and_then(|pair| pair.seed());
        pair.map_err(io::Error::other)
    })?;
    let unusable = |error| StartError::BadOptions(format!("the seed nats/callout-seed in secrets.json: {error}"));
    let issuer = KeyPair::from_seed(&seed).map_err(unusable)?.public_key();
    Ok(Callout::of(issuer, seed, secrets.password(&format!("nats/{CALLOUT_USER}"))?))
}

fn check_user(user: &NatsUser) -> Result<(), StartError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let taken = ["sys", INTERNAL_USER, DOOR_USER, CALLOUT_USER].contains(&user.name.as_str());
    if user.name.is_empty() || !user.name.chars().all(allowed) || taken {
        return Err(StartError::BadOptions(format!("a NATS user cannot be called {:?}", user.name)));
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\';
    match user.publish.iter().chain(&user.subscribe).find(|subject| subject.is_empty() || subject.contains(bad)) {
        Some(subject) => Err(StartError::BadOptions(format!("{subject:?} is not a subject (user {})", user.name))),
        None => Ok(()),
    }
}

/// What both servers' commands have in common: no environment of ours, their log, their user.
pub(crate) fn as_server(command: &mut Command, log: &Path, run_as: Option<&RunAs>) -> Result<(), StartError> {
    use std::os::unix::process::CommandExt;
    let out = logs::open(log).map_err(|error| StartError::io("open", log, error))?;
    let err = out.try_clone().map_err(|error| StartError::io("open", log, error))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(user) = run_as {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(())
}

/// Ends what a killed parent has left.
pub(crate) fn stop_leftovers(directory: &Directory, state: &StateFile) -> usize {
    let known = state.get().nats;
    let lone = leftovers::stop(&directory.nats(), known.process.as_ref(), Signal::SIGTERM);
    let peers = (1..).zip(&known.peers);
    lone + peers
        .map(|(number, peer)| leftovers::stop(&directory.nats_peer(number), peer.process.as_ref(), Signal::SIGTERM))
        .sum::<usize>()
}
