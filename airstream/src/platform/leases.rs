//! Which leases an instance takes part in: what its roles are able to do.

use std::sync::Arc;
use std::time::Duration;

use identity::caretaker::Caretaker;
use identity::keeper::Keeper;
use projections::{Database, PgLeases};
use runtime::lease::{self, Leases};
use runtime::{clock, forward, react};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use workflows::reactor::Steps;

use crate::config::Config;
use crate::roles::Roles;

/// Leases by role; some are about an account for tenants, if there is one.
pub(super) fn wants(config: &Config, roles: Roles, tenants: bool) -> Vec<String> {
    let mut wants = Vec::new();
    if roles.api {
        wants.extend(forward::shard_leases());
        wants.push(gateway::queue::LEASE.to_owned());
        if tenants {
            wants.push(gateway::feed::LEASE.to_owned());
        }
        wants.extend(super::mail::wants(config));
    }
    if roles.projector {
        wants.extend(super::projections::leases());
    }
    if roles.reactor {
        wants.push(react::lease::<Steps>());
        wants.push(react::lease::<Keeper>());
        wants.push(react::lease::<Caretaker>());
    }
    wants
}

/// Begins to keep them.
pub(super) fn keep(
    config: &Config,
    database: &Database,
    wants: Vec<String>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Leases {
    let options = lease::Options { lasting: Duration::from_millis(config.instance.lease_ms) };
    // A name of its own for every start: what a former self held is somebody else's.
    let instance = clock::fresh_id("i_");
    let store = Arc::new(PgLeases::new(database.clone()));
    let (leases, keeping) = lease::keep(store, instance, wants, options, stop.clone());
    tasks.spawn(keeping);
    leases
}
