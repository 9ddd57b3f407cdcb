//! `airstream up`: the servers, the platform, and a page of where everything is.
//!
//! Started and stopped in the order of need: servers, platform, `airstream.json`; the other way round at the end.
//! `airstream.json` goes before the servers do, because with them goes the lock, and then the file may be another's.

mod banner;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embedded::Stack;
use nats::Credentials;

use crate::commands::Context;
use crate::config::{Config, Flag};
use crate::failure::{Exit, Failure, Outcome};
use crate::platform::{self, Addresses, Callout, Platform, Secrets, Tenants};
use crate::roles::Roles;
use crate::signals::Signals;
use crate::state_file::{NatsLogin, ReaderLogin, Running};
use crate::traces::Traces;
use crate::{detach, listen, logging, master_key, paths, process, token};

pub(crate) use banner::Banner;

/// How long the platform may take to finish what it has taken on.
const FINISH: Duration = Duration::from_secs(20);

/// The flags of `up`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    airstream up                        until Ctrl-C\n  \
    airstream up --detach --wait        in the background; `airstream down` stops it\n  \
    airstream up --ephemeral --port 0   leaves nothing behind and is in nobody's way\n  \
    airstream up --cluster 3            three NATS servers: any one may die and nobody notices\n  \
    airstream up --nats nats://127.0.0.1:4222 --postgres postgres://u:p@127.0.0.1/db")]
pub(crate) struct Arguments {
    /// Keep nothing: use a temporary folder and remove it at the end
    #[arg(long)]
    ephemeral: bool,
    /// Use this NATS server (2.14 or newer) instead of starting one
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Use this PostgreSQL (15 or newer) instead of starting one
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// How many NATS servers to start: 1, or 3 as a cluster that keeps three copies of the log [default: what the data
    /// directory was made with, else 1]
    #[arg(long, value_name = "SERVERS", value_parser = cluster_size, conflicts_with = "nats")]
    cluster: Option<usize>,
    /// Run the workers of the example workflow as well
    #[arg(long)]
    demo: bool,
    /// The port of the HTTP door: this one or none; 0 for any free one [default: http.bind's, else the next free one]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Start in the background
    #[arg(long)]
    detach: bool,
    /// With --detach: return when it is ready or has failed (the default)
    #[arg(long, requires = "detach")]
    wait: bool,
    /// With --detach: return at once
    #[arg(long, requires = "detach", conflicts_with = "wait")]
    no_wait: bool,
    /// This is the process in the background; it writes its addresses here
    #[arg(long, hide = true, value_name = "FILE", conflicts_with = "detach")]
    detached: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn ephemeral(&self) -> bool {
        self.ephemeral
    }

    pub(crate) fn waits(&self) -> bool {
        !self.no_wait
    }

    fn flags(&self) -> Vec<Flag> {
        let nats = self.nats.clone().map(|value| Flag { name: "--nats", key: "nats.url", value });
        let postgres = self.postgres.clone().map(|value| Flag { name: "--postgres", key: "postgres.url", value });
        [nats, postgres].into_iter().flatten().collect()
    }

    pub(crate) fn config(&self, context: &Context<'_>) -> Outcome<Config> {
        let mut config = context.config(&self.flags())?.config;
        if let Some(port) = self.port {
            config.http.bind = listen::with_port(&config.http.bind, port)?;
        }
        Ok(config)
    }

    /// Refuses a port that is taken if somebody asked for it: only the configured one makes way for the next.
    pub(crate) fn check_port(&self, config: &Config) -> Outcome {
        match self.port {
            None | Some(0) => Ok(()),
            Some(_) => listen::exactly(&config.http.bind).map(drop),
        }
    }
}

fn cluster_size(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("NATS runs as 1 server or as a cluster of 3".to_owned()),
    }
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    if arguments.detach {
        return detach::run(context, arguments).await;
    }
    if arguments.detached.is_some() {
        // A session of our own: the terminal's Ctrl-C and its end are no longer about us.
        let _ = nix::unistd::setsid();
    }
    let mut signals = Signals::new()?;
    let config = arguments.config(context)?;
    let banner = Banner::new(context.console.clone());
    let started = tokio::select! {
        started = start(context, arguments, config, &banner) => started,
        () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted before it was ready")),
    };
    banner.done();
    let up = started?;
    let failure = tokio::select! {
        () = signals.next() => None,
        failure = up.stack.failed() => Some(failure),
    };
    signals.exit_at_next();
    if failure.is_none() {
        banner.say("stopping; press Ctrl-C again to stop at once");
    }
    up.stop(&banner).await;
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure::new(Exit::Failed, failure.to_string())
            .details(failure.last_lines)
            .hint("what was accepted is in the log; `airstream up` goes on from there")),
    }
}

/// Everything that runs.
struct Up {
    stack: Stack,
    platform: Platform,
    data_dir: PathBuf,
    traces: Traces,
}

async fn start(context: &Context<'_>, arguments: &Arguments, mut config: Config, banner: &Banner) -> Outcome<Up> {
    let began = Instant::now();
    let traces = Traces::start(&config.telemetry)?;
    let log = logging::to_file(&config.log, context.console.verbose(), arguments.detached.is_some(), &traces);
    banner.title();
    // Before the servers start, so that the answer comes at once. A stack that runs here already is the better answer.
    if arguments.ephemeral || Running::alive(&paths::data_dir(&config)?)?.is_none() {
        arguments.check_port(&config)?;
    }
    let listener = banner.clone();
    if arguments.cluster.is_some() && !config.nats.url.is_empty() {
        return Err(Failure::usage("`--cluster` starts NATS servers, and nats.url names one that is somebody else's")
            .hint("leave one of them out; how many copies an external cluster keeps is nats.replicas"));
    }
    let mut options = stack_options(&config, arguments.ephemeral)?;
    options.nats_servers = arguments.cluster;
    let stack = embedded::start(options, move |progress| listener.progress(progress)).await?;
    let data_dir = stack.data_dir().to_owned();
    // Whoever writes files from here on writes them where this stack is.
    config.stack.data_dir = Some(data_dir.clone());
    if !stack.nats().servers.is_empty() {
        // Every server of ours has a copy of everything.
        config.nats.replicas = stack.nats().servers.len();
    }
    let own_log = paths::own_log(&data_dir);
    match paths::open_log(&own_log) {
        Ok(file) => log.open(file),
        Err(error) => banner.notice(&format!("could not write our log to {}: {error}", own_log.display())),
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %data_dir.display(), "the servers run, the platform starts");
    let wanted = config.http.bind.clone();
    if arguments.port.is_none() {
        config.http.bind = listen::next_free(&wanted)?.to_string();
    }
    if config.http.bind != wanted {
        banner.notice(&format!("{wanted} is taken: HTTP listens on {} instead", config.http.bind));
    }
    let token = token::of(&config.development.token, &data_dir)?;
    if config.mail.url.is_empty() && config.mail.mailbox_dir.is_none() {
        config.mail.mailbox_dir = Some(data_dir.join("mailbox"));
    }
    if config.workflows.allow_private.is_empty() {
        // What is being developed runs here, too.
        config.workflows.allow_private = ["127.0.0.0/8", "::1"].map(str::to_owned).to_vec();
    }
    let addresses = addresses(&config, &stack);
    let on_step = |step| banner.step(&step);
    let secrets = Secrets { token: token.clone(), master: Some(master_key::of(&config, &data_dir)?) };
    let platform = Platform::start(&config, &addresses, Roles::all(), arguments.demo, &secrets, &on_step).await?;
    let running = running(&config, &stack, &addresses, &platform, token);
    running.write(&data_dir)?;
    if let Some(ready_file) = &arguments.detached {
        // Whoever started us may not have waited.
        let _ = serde_json::to_vec(&running).map(|text| paths::write_private(ready_file, &text));
    }
    banner.ready(&running, began.elapsed(), arguments.detached.is_some());
    if context.console.is_json() && arguments.detached.is_none() {
        // A reader that is gone is no reason to stop the servers.
        let _ = context.console.json(&crate::commands::status::document(&running, Some(true)));
    }
    Ok(Up { stack, platform, data_dir, traces })
}

impl Up {
    async fn stop(self, banner: &Banner) {
        if tokio::time::timeout(FINISH, self.platform.stop()).await.is_err() {
            banner.notice("the platform did not finish in time; what it was doing is done again after the next start");
        }
        self.traces.finish().await;
        Running::remove(&self.data_dir);
        let report = self.stack.stop().await;
        for stopped in &report.children {
            banner.say(&stopped.to_string());
        }
    }
}

/// What `embedded` is asked for.
pub(crate) fn stack_options(config: &Config, ephemeral: bool) -> Outcome<embedded::Options> {
    let given = |url: &str| (!url.is_empty()).then(|| url.to_owned());
    let cache_dir = match &config.stack.cache_dir {
        Some(path) => path.clone(),
        None => embedded::default_cache_dir()?,
    };
    Ok(embedded::Options {
        data_dir: paths::data_dir(config)?,
        ephemeral,
        nats_url: given(&config.nats.url),
        postgres_url: given(&config.postgres.url),
        nats_binary: config.stack.nats_binary.clone(),
        postgres_bin_dir: config.stack.postgres_bin_dir.clone(),
        cache_dir,
        nats_users: platform::nats_users(config),
        nats_doors: platform::nats_doors(),
        ..embedded::Options::default()
    })
}

/// Our own server's users, or those configured for somebody else's.
pub(crate) fn addresses(config: &Config, stack: &Stack) -> Addresses {
    let (nats, configured) = (stack.nats(), &config.nats);
    let (system_user, system_password) = match nats.users.get("sys") {
        Some(password) => ("sys".to_owned(), password.clone()),
        None => (configured.system_user.clone(), configured.system_password.clone()),
    };
    Addresses {
        nats_url: nats.url.clone(),
        nats_user: nats.user.clone().unwrap_or_else(|| configured.user.clone()),
        nats_password: nats.password.clone().unwrap_or_else(|| configured.password.clone()),
        system_user,
        system_password,
        tenants: nats.tenants.as_ref().map_or_else(|| configured.tenants(), |ours| Some(tenants(ours))),
        postgres_url: stack.postgres().url.clone(),
    }
}

fn tenants(ours: &embedded::NatsTenants) -> Tenants {
    let login = |user: &str, password: &str| Credentials { user: user.to_owned(), password: password.to_owned() };
    Tenants {
        account: ours.account.clone(),
        door: login(&ours.user, &ours.password),
        callout: Some(Callout {
            login: login(&ours.callout_user, &ours.callout_password),
            seed: ours.callout_seed.clone(),
        }),
    }
}

fn running(config: &Config, stack: &Stack, addresses: &Addresses, platform: &Platform, token: String) -> Running {
    let principal = config.development.principal.clone();
    let users = &stack.nats().users;
    let callout = addresses.tenants.as_ref().and_then(|tenants| tenants.callout.as_ref());
    // Of somebody else's server we know our own users only; but we may be the ones who say who comes in.
    let login = match (users.get(&principal), callout) {
        (Some(password), _) => (principal.clone(), password.clone()),
        (None, Some(_)) => (principal.clone(), token.clone()),
        (None, None) => (addresses.nats_user.clone(), addresses.nats_password.clone()),
    };
    let reader = users.get(platform::READER);
    let nats = NatsLogin {
        url: addresses.nats_url.clone(),
        user: login.0,
        password: login.1,
        inbox_prefix: platform::inbox(config),
        reader: reader.map(|password| ReaderLogin { user: platform::READER.to_owned(), password: password.clone() }),
    };
    let http = platform.http().map(reachable).unwrap_or_default();
    let process = process::Process::this();
    Running {
        mailbox: config
            .mail
            .mailbox_dir
            .as_ref()
            .filter(|_| config.mail.url.is_empty())
            .map(|_| format!("{http}/mailbox")),
        http,
        nats,
        nats_servers: stack.nats().servers.iter().map(|server| server.url.clone()).collect(),
        postgres: addresses.postgres_url.clone(),
        tenant: config.development.tenant.clone(),
        principal,
        token,
        pid: process.pid,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: stack.data_dir().to_owned(),
        logs: stack.log_dir(),
        started_at: runtime::clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        process,
    }
}

/// "All addresses" is not one that a client can connect to.
fn reachable(mut address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv6() {
            std::net::Ipv6Addr::LOCALHOST.into()
        } else {
            std::net::Ipv4Addr::LOCALHOST.into()
        });
    }
    format!("http://{address}")
}

/// How to call this program so that it talks to the stack in this data directory.
pub(crate) fn invocation(data_dir: &Path) -> String {
    let program = program();
    if embedded::default_data_dir().is_ok_and(|usual| usual == data_dir) {
        return program;
    }
    format!("{program} --data-dir {}", quoted(&data_dir.display().to_string()))
}

/// One word to a shell, however many it is to a person: what we print is there to be copied.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// `airstream` if a shell would find this very program, else the path to it.
fn program() -> String {
    let name = "airstream".to_owned();
    let Ok(exe) = std::env::current_exe() else { return name };
    let same = |found: &Path| found.canonicalize().is_ok_and(|found| found == exe);
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| same(&dir.join(&name))));
    if found {
        return name;
    }
    let here = std::env::current_dir().unwrap_or_default();
    quoted(&match exe.strip_prefix(here) {
        Ok(below) if below.components().count() > 1 => below.display().to_string(),
        Ok(below) => format!("./{}", below.display()),
        Err(_) => exe.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_copied_into_a_shell() {
        for (word, shown) in
            [("/a/b-1.c", "/a/b-1.c"), ("/a b", "'/a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), shown);
        }
        assert!(invocation(Path::new("/some where")).ends_with(" --data-dir '/some where'"));
    }
}
