//! The streams, as data. They are created when absent and compared when present; a difference is reported, never
//! silently changed: an operator may have had a reason, and some of these settings cannot be taken back.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::Connection;

/// How long the making of a stream may take.
const ONE_STREAM: Duration = Duration::from_secs(5);

/// The log.
pub const EVENTS: &str = "EVENTS";
/// Queued commands.
pub const COMMANDS: &str = "COMMANDS";
/// Steps for outside workers.
pub const TASKS: &str = "TASKS";

/// Version of subjects, headers and envelope together.
const FORMAT: &str = "1";

/// How far a difference reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// What we promise would not hold.
    Unsafe,
    /// Worth knowing.
    Notable,
}

/// A setting that is not as we would have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Which stream.
    pub stream: &'static str,
    /// Which setting.
    pub setting: &'static str,
    /// What we would have.
    pub wanted: String,
    /// What the server has.
    pub found: String,
    /// How bad that is.
    pub severity: Severity,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stream {}: `{}` is {}, we expect {}", self.stream, self.setting, self.found, self.wanted)
    }
}

/// The streams could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A stream could not be read or created.
    #[error("could not prepare the stream {stream}: {reason}")]
    Failed {
        /// Which one.
        stream: &'static str,
        /// What the server said.
        reason: String,
    },
    /// A stream exists whose settings break a promise of ours.
    #[error("{}. Change it back with `nats stream edit`, or point us at another account", list(.0))]
    Unsafe(Vec<Drift>),
}

fn list(drift: &[Drift]) -> String {
    drift.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What we expect of the server, for a number of replicas.
#[must_use]
pub fn streams(replicas: usize) -> Vec<Config> {
    let common = Config {
        storage: StorageType::File,
        // A full log refuses; it never forgets.
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        metadata: HashMap::from([
            ("airstream-format".to_owned(), FORMAT.to_owned()),
            ("airstream-shards".to_owned(), kernel::SHARDS.to_string()),
        ]),
        ..Config::default()
    };
    vec![
        Config {
            name: EVENTS.to_owned(),
            description: Some("the log: one message per commit".to_owned()),
            subjects: vec!["ev.>".to_owned()],
            retention: RetentionPolicy::Limits,
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            allow_atomic_publish: true,
            // An optimisation only: idempotency is read from the log. Each id in the window costs 0.2 KB of memory.
            duplicate_window: Duration::from_secs(30),
            ..common.clone()
        },
        Config {
            name: COMMANDS.to_owned(),
            description: Some("queued commands: executed once, in order per stream".to_owned()),
            subjects: vec!["queue.>".to_owned()],
            retention: RetentionPolicy::WorkQueue,
            // As short as the server allows: the window is shared by all tenants, so one could swallow another's
            // message. Command ids do this job.
            duplicate_window: Duration::from_millis(100),
            ..common.clone()
        },
        Config {
            name: TASKS.to_owned(),
            description: Some("tasks that wait for a worker".to_owned()),
            subjects: vec!["tasks.>".to_owned()],
            retention: RetentionPolicy::WorkQueue,
            duplicate_window: Duration::from_secs(120),
            ..common
        },
    ]
}

/// Creates what is absent and compares what is present.
///
/// # Errors
/// [`TopologyError::Unsafe`] when a difference breaks a promise; the harmless ones are returned.
pub async fn ensure(connection: &Connection, replicas: usize) -> Result<Vec<Drift>, TopologyError> {
    let mut drift = Vec::new();
    for wanted in streams(replicas) {
        let stream = static_name(&wanted.name);
        // A cluster that has just come together takes a moment to find places for three copies.
        let make = || connection.context.get_or_create_stream(wanted.clone());
        let found = connection.make("prepare a stream", ONE_STREAM, make).await;
        let found = found.map_err(|error| TopologyError::Failed { stream, reason: error.reason })?;
        drift.extend(compare(stream, &wanted, &found.cached_info().config));
    }
    let (broken, notable): (Vec<_>, Vec<_>) = drift.into_iter().partition(|drift| drift.severity == Severity::Unsafe);
    if broken.is_empty() { Ok(notable) } else { Err(TopologyError::Unsafe(broken)) }
}

/// Compares without creating anything; a missing stream is no difference.
///
/// # Errors
/// [`TopologyError::Failed`] when the server does not answer.
pub async fn inspect(connection: &Connection, replicas: usize) -> Result<Vec<Drift>, TopologyError> {
    let mut drift = Vec::new();
    for wanted in streams(replicas) {
        let stream = static_name(&wanted.name);
        if let Ok(found) = connection.context.get_stream(&wanted.name).await {
            drift.extend(compare(stream, &wanted, &found.cached_info().config));
        }
    }
    Ok(drift)
}

fn static_name(name: &str) -> &'static str {
    [EVENTS, COMMANDS, TASKS].into_iter().find(|known| *known == name).unwrap_or("?")
}

fn compare(stream: &'static str, wanted: &Config, found: &Config) -> Vec<Drift> {
    let mut drift = Vec::new();
    let mut check = |setting, severity, wanted: &dyn Debug, found: &dyn Debug| {
        let (wanted, found) = (format!("{wanted:?}"), format!("{found:?}"));
        if wanted != found {
            drift.push(Drift { stream, setting, wanted, found, severity });
        }
    };
    use Severity::{Notable, Unsafe};
    check("subjects", Unsafe, &wanted.subjects, &found.subjects);
    check("retention", Unsafe, &wanted.retention, &found.retention);
    check("storage", Unsafe, &wanted.storage, &found.storage);
    check("discard", Unsafe, &wanted.discard, &found.discard);
    check("max_age", Unsafe, &wanted.max_age, &found.max_age);
    check(
        "max_msgs_per_subject",
        Unsafe,
        &-1,
        &if found.max_messages_per_subject == 0 { -1 } else { found.max_messages_per_subject },
    );
    check("sealed", Unsafe, &wanted.sealed, &found.sealed);
    check("allow_msg_ttl", Unsafe, &wanted.allow_message_ttl, &found.allow_message_ttl);
    check("deny_delete", Unsafe, &wanted.deny_delete, &found.deny_delete);
    check("deny_purge", Unsafe, &wanted.deny_purge, &found.deny_purge);
    check("allow_direct", Unsafe, &wanted.allow_direct, &found.allow_direct);
    check("allow_atomic", Unsafe, &wanted.allow_atomic_publish, &found.allow_atomic_publish);
    check("allow_rollup", Unsafe, &wanted.allow_rollup, &found.allow_rollup);
    check("subject_transform", Unsafe, &wanted.subject_transform, &found.subject_transform);
    check(
        "persist_mode",
        Unsafe,
        &None::<()>,
        &found.persist_mode.as_ref().filter(|mode| format!("{mode:?}") != "Default"),
    );
    check("replicas", Notable, &wanted.num_replicas, &found.num_replicas);
    check("duplicate_window", Notable, &wanted.duplicate_window, &found.duplicate_window);
    let format = |config: &Config| config.metadata.get("airstream-format").cloned();
    check("airstream-format", Unsafe, &format(wanted), &format(found));
    let shards = |config: &Config| config.metadata.get("airstream-shards").cloned();
    check("airstream-shards", Unsafe, &shards(wanted), &shards(found));
    drift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_could_forget_is_called_unsafe() {
        let wanted = &streams(1)[0];
        let found = Config { max_age: Duration::from_secs(60), deny_delete: false, num_replicas: 3, ..wanted.clone() };
        let drift = compare(EVENTS, wanted, &found);
        let seen: Vec<_> = drift.iter().map(|drift| (drift.setting, drift.severity)).collect();
        use Severity::{Notable, Unsafe};
        assert_eq!(seen, [("max_age", Unsafe), ("deny_delete", Unsafe), ("replicas", Notable)]);
        assert!(compare(EVENTS, wanted, wanted).is_empty());
    }
}
