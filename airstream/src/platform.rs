//! Provisional: the composition of the platform is being written.

use std::net::SocketAddr;

use crate::config::Config;
use crate::roles::Roles;

/// Where the servers are and who we are there.
pub(crate) struct Addresses {
    pub(crate) nats_url: String,
    pub(crate) nats_user: String,
    pub(crate) nats_password: String,
    pub(crate) system_user: String,
    pub(crate) system_password: String,
    pub(crate) postgres_url: String,
}

/// What the start has got to.
#[allow(dead_code)]
pub(crate) enum Step {
    Migrated { applied: usize, total: usize },
    Topology { notices: Vec<String> },
    Listening { http: SocketAddr },
    Roles(Vec<&'static str>),
}

pub(crate) struct Platform {
    http: Option<SocketAddr>,
}

impl Platform {
    #[allow(clippy::unused_async)]
    pub(crate) async fn start(
        _config: &Config,
        addresses: &Addresses,
        _roles: Roles,
        _demo: bool,
        _token: &str,
        _on_step: &(dyn Fn(Step) + Send + Sync),
    ) -> anyhow::Result<Platform> {
        let Addresses { nats_url, nats_user, nats_password, system_user, system_password, postgres_url } = addresses;
        let _ = (nats_url, nats_user, nats_password, system_user, system_password, postgres_url);
        anyhow::bail!("not wired yet")
    }

    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn stop(self) {}
}

/// NATS users with permissions for the development tenant.
pub(crate) fn nats_users(config: &Config) -> Vec<embedded::NatsUser> {
    vec![embedded::NatsUser { name: config.development.principal.clone(), publish: Vec::new(), subscribe: Vec::new() }]
}
