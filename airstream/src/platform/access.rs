//! What the users of the local stack may do on NATS: the development principal what a tenant's program may do anywhere, and
//! a reader, who is a person at this machine, look at the log.

use embedded::{NatsAccount, NatsUser};
use kernel::{PrincipalId, TenantId};

use crate::config::Config;

/// Who reads the log of the local stack.
pub(crate) const READER: &str = "airstream-reader";

/// NATS users besides the platform's own.
pub(crate) fn nats_users(config: &Config) -> Vec<NatsUser> {
    let (tenant, principal) = (&config.development.tenant, &config.development.principal);
    let own = ["cmd", "queue", "work"].map(|door| format!("{door}.{tenant}.{principal}.>"));
    // Where a cluster's servers map the first ones to: the server asks for permission after the mapping.
    let mapped = ["cmd", "queue", "work"].map(|door| format!("door.*.{door}.{tenant}.{principal}.>"));
    let development = NatsUser {
        account: NatsAccount::Tenants,
        name: principal.clone(),
        publish: own.into_iter().chain(mapped).collect(),
        subscribe: vec![format!("{}.>", inbox(config)), format!("feed.{tenant}.>")],
    };
    let read = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS.>",
        "$JS.API.CONSUMER.CREATE.EVENTS",
        "$JS.API.CONSUMER.CREATE.EVENTS.>",
        "$JS.API.CONSUMER.INFO.EVENTS.>",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.>",
        "$JS.ACK.EVENTS.>",
    ];
    let reader = NatsUser {
        account: NatsAccount::Platform,
        name: READER.to_owned(),
        publish: read.map(str::to_owned).to_vec(),
        subscribe: vec!["_INBOX.>".to_owned()],
    };
    vec![development, reader]
}

/// Where the development principal waits for its answers.
pub(crate) fn inbox(config: &Config) -> String {
    let development = &config.development;
    let tenant = TenantId::new(&development.tenant);
    let principal = PrincipalId::new(&development.principal);
    // A configuration with other names is refused before anybody gets here.
    tenant
        .ok()
        .zip(principal.ok())
        .map_or_else(String::new, |(tenant, principal)| nats::subjects::inbox(&tenant, &principal))
}

/// Where callers wait for an answer: on a cluster each server has a way to us of its own.
pub(crate) fn nats_doors() -> Vec<String> {
    ["cmd.>", "queue.>", "work.>"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_example_configurations_of_a_cluster_are_what_up_writes() {
        let [one, two, three] = embedded::example_cluster(&nats_users(&Config::default()), &nats_doors());
        expect_file!["../../../nats/cluster/nats-1.conf"].assert_eq(&one);
        expect_file!["../../../nats/cluster/nats-2.conf"].assert_eq(&two);
        expect_file!["../../../nats/cluster/nats-3.conf"].assert_eq(&three);
    }
}
