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
    let publish = own.into_iter().chain(read.map(str::to_owned)).collect();
    vec![embedded::NatsUser { name: principal.clone(), publish, subscribe: vec!["_INBOX.>".to_owned()] }]
}
