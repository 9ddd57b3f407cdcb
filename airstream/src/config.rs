//! The configuration: defaults < `airstream.toml` < `AIRSTREAM__SECTION__KEY` < flags.
//!
//! **Invariant**: `config.default.toml` documents every key and says exactly what [`Config::default`] says (a test holds
//! both together), and a key that nobody knows is refused with the one that was probably meant.

mod layers;
mod limits;
mod show;

use std::path::PathBuf;

use nats::Credentials;
use serde::{Deserialize, Serialize};

use crate::platform::{Callout, Tenants};

pub(crate) use layers::{FILE, Flag, Loaded, load};
pub(crate) use limits::Limits;
pub(crate) use show::{Shown, without_password};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) http: Http,
    pub(crate) limits: Limits,
    pub(crate) nats: Nats,
    pub(crate) postgres: Postgres,
    pub(crate) stack: Stack,
    pub(crate) instance: Instance,
    pub(crate) executor: Executor,
    pub(crate) reactor: Reactor,
    pub(crate) workflows: Workflows,
    pub(crate) identity: Identity,
    pub(crate) oauth: OAuth,
    pub(crate) mail: Mail,
    pub(crate) development: Development,
    pub(crate) log: Log,
    pub(crate) telemetry: Telemetry,
}

/// The HTTP door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) bind: String,
    pub(crate) body_limit_bytes: usize,
    pub(crate) request_timeout_ms: u64,
    pub(crate) header_timeout_ms: u64,
    pub(crate) max_connections: usize,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) forwarded_header: ForwardedHeader,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) hsts_seconds: u64,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            bind: "127.0.0.1:8787".to_owned(),
            body_limit_bytes: 1024 * 1024,
            request_timeout_ms: 30_000,
            header_timeout_ms: 10_000,
            max_connections: 4_096,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            cors_origins: Vec::new(),
            hsts_seconds: 0,
        }
    }
}

/// Where proxies write who has asked them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardedHeader {
    XForwardedFor,
    Forwarded,
}

impl Http {
    /// What the door tells browsers.
    pub(crate) fn browsers(&self) -> gateway::Browsers {
        gateway::Browsers {
            origins: self.cors_origins.clone(),
            https_only: std::time::Duration::from_secs(self.hsts_seconds),
        }
    }

    /// Whom the door believes. Networks that are none have been refused with the other mistakes.
    pub(crate) fn proxies(&self) -> gateway::Proxies {
        gateway::Proxies {
            trusted: self.trusted_proxies.iter().filter_map(|text| network(text)).collect(),
            header: match self.forwarded_header {
                ForwardedHeader::XForwardedFor => gateway::ForwardedBy::XForwardedFor,
                ForwardedHeader::Forwarded => gateway::ForwardedBy::Forwarded,
            },
        }
    }
}

/// As a browser says it: scheme, host, and a port that is not the scheme's own; `*` for all.
fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let host = host.is_some_and(|host| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:[]".contains(c))
    });
    text == "*" || host
}

/// A network, or the one address of which it consists.
fn network(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Into::into))
}

/// A NATS server that is somebody else's.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nats {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) system_user: String,
    pub(crate) system_password: String,
    pub(crate) tenants_account: String,
    pub(crate) tenants_user: String,
    pub(crate) tenants_password: String,
    pub(crate) callout_user: String,
    pub(crate) callout_password: String,
    pub(crate) callout_seed: String,
    pub(crate) replicas: usize,
    pub(crate) require_durable: bool,
}

impl Nats {
    /// The way into the account of everybody else, if there is one.
    pub(crate) fn tenants(&self) -> Option<Tenants> {
        let login = |user: &String, password: &String| {
            (!user.is_empty()).then(|| Credentials { user: user.clone(), password: password.clone() })
        };
        let callout = login(&self.callout_user, &self.callout_password);
        Some(Tenants {
            account: self.tenants_account.clone(),
            door: login(&self.tenants_user, &self.tenants_password)?,
            callout: callout.map(|login| Callout { login, seed: self.callout_seed.clone() }),
        })
    }
}

impl Default for Nats {
    fn default() -> Nats {
        Nats {
            url: String::new(),
            user: String::new(),
            password: String::new(),
            system_user: String::new(),
            system_password: String::new(),
            tenants_account: "TENANTS".to_owned(),
            tenants_user: String::new(),
            tenants_password: String::new(),
            callout_user: String::new(),
            callout_password: String::new(),
            callout_seed: String::new(),
            replicas: 1,
            require_durable: false,
        }
    }
}

/// A PostgreSQL server that is somebody else's.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    pub(crate) url: String,
    pub(crate) max_connections: u32,
}

impl Default for Postgres {
    fn default() -> Postgres {
        Postgres { url: String::new(), max_connections: 16 }
    }
}

/// The servers that `up` starts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stack {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) nats_binary: Option<PathBuf>,
    pub(crate) postgres_bin_dir: Option<PathBuf>,
}

/// One of several processes that share the work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instance {
    pub(crate) lease_ms: u64,
}

impl Default for Instance {
    fn default() -> Instance {
        Instance { lease_ms: 5_000 }
    }
}

/// Limits of command execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Executor {
    pub(crate) queue_per_shard: usize,
    pub(crate) streams_per_shard: usize,
    pub(crate) cache_bytes_per_shard: usize,
    pub(crate) deadline_ms: u64,
    pub(crate) conflict_retries: u32,
    pub(crate) max_body_bytes: usize,
    pub(crate) snapshot_every_commits: u32,
}

impl Default for Executor {
    fn default() -> Executor {
        Executor {
            queue_per_shard: 4_096,
            streams_per_shard: 2_048,
            cache_bytes_per_shard: 6 * 1024 * 1024,
            deadline_ms: 10_000,
            conflict_retries: 16,
            max_body_bytes: 512 * 1024,
            snapshot_every_commits: 500,
        }
    }
}

/// Limits of acting on the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reactor {
    pub(crate) concurrency: usize,
    pub(crate) longest_retry_ms: u64,
}

impl Default for Reactor {
    fn default() -> Reactor {
        Reactor { concurrency: 256, longest_retry_ms: 60_000 }
    }
}

/// What workflows may do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workflows {
    pub(crate) allow_private: Vec<String>,
}

impl Workflows {
    /// Where requests of steps may go. Networks that are none have been refused with the other mistakes.
    pub(crate) fn reach(&self) -> workflows::Reach {
        let allowed: Vec<_> = self.allow_private.iter().filter_map(|text| network(text)).collect();
        workflows::Reach::new(&allowed)
    }
}

/// People, tenants, keys.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) master_key: String,
    pub(crate) master_key_file: Option<PathBuf>,
    pub(crate) public_url: String,
    pub(crate) operators: Vec<String>,
    pub(crate) session_days: u32,
    pub(crate) idle_days: u32,
    pub(crate) hashes_at_once: usize,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            master_key: String::new(),
            master_key_file: None,
            public_url: String::new(),
            operators: Vec::new(),
            session_days: 30,
            idle_days: 7,
            hashes_at_once: 0,
        }
    }
}

/// Providers by which people may sign in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OAuth {
    pub(crate) google: Google,
    pub(crate) github: Github,
}

/// By OpenID Connect.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Google {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) issuer: String,
}

impl Default for Google {
    fn default() -> Google {
        Google {
            client_id: String::new(),
            client_secret: String::new(),
            issuer: "https://accounts.google.com".to_owned(),
        }
    }
}

/// By OAuth 2.0.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Github {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) authorize_url: String,
    pub(crate) token_url: String,
    pub(crate) api_url: String,
}

impl Default for Github {
    fn default() -> Github {
        Github {
            client_id: String::new(),
            client_secret: String::new(),
            authorize_url: "https://github.com/login/oauth/authorize".to_owned(),
            token_url: "https://github.com/login/oauth/access_token".to_owned(),
            api_url: "https://api.github.com".to_owned(),
        }
    }
}

/// Mails to people.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mail {
    pub(crate) url: String,
    pub(crate) from: String,
    pub(crate) authority_file: Option<PathBuf>,
    pub(crate) mailbox_dir: Option<PathBuf>,
}

/// Who one is on a development stack without signing in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Development {
    pub(crate) tenant: String,
    pub(crate) principal: String,
    pub(crate) token: String,
}

impl Default for Development {
    fn default() -> Development {
        Development { tenant: "dev".to_owned(), principal: "dev".to_owned(), token: String::new() }
    }
}

/// Our own log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// What a line of our log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is told to others about what goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Telemetry {
    pub(crate) otlp_endpoint: String,
    pub(crate) sample_ratio: f64,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry { otlp_endpoint: String::new(), sample_ratio: 1.0 }
    }
}

// A password must not reach a log because somebody printed its section.
macro_rules! debug_without_secrets {
    ($($section:ident),+) => {
        $(impl std::fmt::Debug for $section {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($section)).finish_non_exhaustive()
            }
        })+
    };
}
debug_without_secrets!(Nats, Postgres, Identity, Google, Github, Mail, Development);

impl Config {
    /// What types cannot say: one sentence per value that makes no sense.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut expect = |right: bool, sentence: String| {
            if !right {
                mistakes.push(sentence);
            }
        };
        expect(
            self.http.bind.parse::<std::net::SocketAddr>().is_ok(),
            format!("http.bind is an IP address and a port such as 127.0.0.1:8787, not '{}'", self.http.bind),
        );
        for text in &self.http.cors_origins {
            let sentence =
                format!("http.cors_origins has origins such as https://app.example.org, and '{text}' is none");
            expect(is_origin(text), sentence);
        }
        for text in &self.http.trusted_proxies {
            let sentence = format!("http.trusted_proxies has networks such as 10.0.0.0/8, and '{text}' is none");
            expect(network(text).is_some(), sentence);
        }
        for text in &self.workflows.allow_private {
            let sentence = format!("workflows.allow_private has networks such as 10.0.0.0/8, and '{text}' is none");
            expect(network(text).is_some(), sentence);
        }
        for mistake in self.limits.mistakes() {
            expect(false, mistake);
        }
        let development = &self.development;
        if let Err(error) = kernel::TenantId::new(&development.tenant) {
            expect(false, format!("development.tenant: {error}"));
        }
        if let Err(error) = kernel::PrincipalId::new(&development.principal) {
            expect(false, format!("development.principal: {error}"));
        }
        // `embedded` makes these itself.
        let principal = &development.principal;
        expect(
            principal != "sys" && principal != "airstream" && !principal.starts_with("airstream-"),
            format!("development.principal may not be '{}': the platform uses that name itself", development.principal),
        );
        expect(
            development.token.is_empty() || development.token.len() >= 16,
            "development.token must have at least 16 characters (or none, and `up` makes one)".to_owned(),
        );
        expect(
            development.token.chars().all(|c| c.is_ascii_graphic()),
            "development.token may have visible ASCII characters only".to_owned(),
        );
        let ours = &self.identity;
        if !ours.master_key.is_empty()
            && let Err(error) = vault::MasterKey::parse(&ours.master_key)
        {
            expect(false, format!("identity.master_key: {error}"));
        }
        expect(
            ours.master_key.is_empty() || ours.master_key_file.is_none(),
            "identity.master_key and identity.master_key_file are two ways to say the same: choose one".to_owned(),
        );
        let url = &ours.public_url;
        expect(
            url.is_empty()
                || (["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) && !url.ends_with('/')),
            format!(
                "identity.public_url is a URL without a slash at its end, such as https://air.example, not '{url}'"
            ),
        );
        for operator in &ours.operators {
            if let Err(error) = identity::names::Email::parse(operator) {
                expect(false, format!("identity.operators: '{operator}': {error}"));
            }
        }
        expect(
            (1..=3650).contains(&ours.session_days) && (1..=3650).contains(&ours.idle_days),
            "identity.session_days and identity.idle_days are between 1 and 3650".to_owned(),
        );
        let OAuth { google, github } = &self.oauth;
        for (name, id, secret) in
            [("google", &google.client_id, &google.client_secret), ("github", &github.client_id, &github.client_secret)]
        {
            expect(
                id.is_empty() == secret.is_empty(),
                format!("oauth.{name}.client_id and oauth.{name}.client_secret belong together"),
            );
        }
        for (key, url) in [
            ("google.issuer", &google.issuer),
            ("github.authorize_url", &github.authorize_url),
            ("github.token_url", &github.token_url),
            ("github.api_url", &github.api_url),
        ] {
            if let Err(error) = identity::oauth::address(url) {
                expect(false, format!("oauth.{key}: {error}"));
            }
        }
        let mail = &self.mail;
        if !mail.url.is_empty() {
            let server = mail::Server::parse(&mail.url);
            expect(server.is_ok(), format!("mail.url {}", server.err().unwrap_or_default()));
            expect(!mail.from.is_empty(), "mail.from is needed: whom mails are from".to_owned());
        }
        if !mail.from.is_empty() {
            let from = mail::Sender::parse(&mail.from);
            expect(from.is_ok(), format!("mail.from: {}", from.err().unwrap_or_default()));
        }
        expect(
            matches!(self.nats.replicas, 1 | 3 | 5),
            format!("nats.replicas is 1, 3 or 5, not {}", self.nats.replicas),
        );
        let nats = &self.nats;
        expect(
            nats.callout_user.is_empty() || !(nats.tenants_user.is_empty() || nats.callout_seed.is_empty()),
            "nats.callout_user needs nats.tenants_user and nats.callout_seed beside it".to_owned(),
        );
        expect(
            nats.callout_seed.is_empty() || nats.callout_seed.starts_with("SA"),
            "nats.callout_seed is the seed of an account key and begins with SA".to_owned(),
        );
        let limits = [
            ("http.body_limit_bytes", self.http.body_limit_bytes as u64),
            ("http.request_timeout_ms", self.http.request_timeout_ms),
            ("http.header_timeout_ms", self.http.header_timeout_ms),
            ("http.max_connections", self.http.max_connections as u64),
            ("postgres.max_connections", u64::from(self.postgres.max_connections)),
            ("executor.queue_per_shard", self.executor.queue_per_shard as u64),
            ("executor.streams_per_shard", self.executor.streams_per_shard as u64),
            ("executor.deadline_ms", self.executor.deadline_ms),
            ("executor.max_body_bytes", self.executor.max_body_bytes as u64),
            ("reactor.concurrency", self.reactor.concurrency as u64),
            ("reactor.longest_retry_ms", self.reactor.longest_retry_ms),
        ];
        for (key, value) in limits {
            expect(value > 0, format!("{key} must be at least 1"));
        }
        // A commit is one message of the log, and a message has at most 1 MiB, envelope included.
        expect(
            self.executor.max_body_bytes <= 768 * 1024,
            "executor.max_body_bytes is at most 786432 (768 KiB): a commit must fit into one message of 1 MiB"
                .to_owned(),
        );
        let endpoint = &self.telemetry.otlp_endpoint;
        expect(
            endpoint.is_empty() || ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)),
            format!("telemetry.otlp_endpoint is a URL such as http://127.0.0.1:4318, not '{endpoint}'"),
        );
        expect(
            (0.0..=1.0).contains(&self.telemetry.sample_ratio),
            format!("telemetry.sample_ratio is between 0 and 1, not {}", self.telemetry.sample_ratio),
        );
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            expect(
                false,
                format!("log.level '{}' is not a level or filter such as `info,nats=debug`: {error}", self.log.level),
            );
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Config::default().mistakes(), Vec::<String>::new());
    }

    #[test]
    fn a_provider_is_reached_in_secret_and_knows_us() {
        let mut config = Config::default();
        config.oauth.google.client_id = "air".to_owned();
        config.oauth.google.issuer = "http://accounts.example.org".to_owned();
        config.oauth.github.api_url = "api.github.com".to_owned();
        assert_eq!(config.mistakes().len(), 3, "{:?}", config.mistakes());
        assert!(!format!("{config:?}").contains("air"), "{config:?}");
    }

    #[test]
    fn a_mail_server_needs_a_url_and_a_sender() {
        let mut config = Config::default();
        config.mail.url = "mail.example.org:587".to_owned();
        assert_eq!(config.mistakes().len(), 2, "{:?}", config.mistakes());
        config.mail.from = "nobody".to_owned();
        assert_eq!(config.mistakes().len(), 2, "{:?}", config.mistakes());
        config.mail.url = "smtps://u:p@mail.example.org".to_owned();
        config.mail.from = "Airstream <no-reply@example.org>".to_owned();
        assert_eq!(config.mistakes(), Vec::<String>::new());
    }

    #[test]
    fn values_without_sense_are_told_all_at_once() {
        let mut config = Config::default();
        config.http.bind = "localhost".to_owned();
        config.http.trusted_proxies = vec!["10.0.0.0/8".to_owned(), "10.0.0.0/33".to_owned()];
        config.http.cors_origins = vec!["https://app.example.org/".to_owned(), "*".to_owned()];
        config.limits.user.read = "600".to_owned();
        config.workflows.allow_private = vec!["localhost".to_owned()];
        config.development.tenant = "a.b".to_owned();
        config.development.principal = "sys".to_owned();
        config.development.token = "short".to_owned();
        config.nats.replicas = 2;
        config.executor.deadline_ms = 0;
        config.telemetry.otlp_endpoint = "localhost:4318".to_owned();
        config.telemetry.sample_ratio = 100.0;
        assert_eq!(config.mistakes().len(), 12, "{:?}", config.mistakes());
    }
}
