//! What the development user of the local stack may do on NATS: what a tenant's program may do anywhere, and, because
//! there is only one tenant, read the log.

use crate::config::Config;

/// NATS users with permissions for the development tenant.
pub(crate) fn nats_users(config: &Config) -> Vec<embedded::NatsUser> {
    let (tenant, principal) = (&config.development.tenant, &config.development.principal);
    let own = ["cmd", "queue", "work"].map(|door| format!("{door}.{tenant}.{principal}.>"));
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
    // Where a cluster's servers map the first ones to: the server asks for permission after the mapping.
    let mapped = ["cmd", "work"].map(|door| format!("door.*.{door}.{tenant}.{principal}.>"));
    let publish = own.into_iter().chain(mapped).chain(read.map(str::to_owned)).collect();
    vec![embedded::NatsUser { name: principal.clone(), publish, subscribe: vec!["_INBOX.>".to_owned()] }]
}

/// Where callers wait for an answer: on a cluster each server has a way to us of its own.
pub(crate) fn nats_doors() -> Vec<String> {
    ["cmd.>", "work.>"].map(str::to_owned).to_vec()
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
