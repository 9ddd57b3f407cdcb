//! Names of metrics, in one place, each with what `/metrics` says about it. Units last; `_total` for counters.
//!
//! Labels are bounded: `consumer`, `lease`, `door` and `kind` name what the binary is composed of; `category` and `command` are
//! those that deciders know, and empty for anything else; `route` is a pattern, never a path; `outcome`, `change`, `state`,
//! `method`, `policy` and `status` come from lists in the code. No label ever carries what a caller made up.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts what fell into each bucket; never a summary, because those cannot be added up over instances.
    Histogram,
}

/// A metric as people find it on `/metrics`.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// Its labels; none means that it is there from the start.
    pub labels: &'static [&'static str],
    /// What it means: the text of the constant's documentation.
    pub help: &'static str,
}

/// A constant per metric, and the list of all: the documentation of one is the help of the other.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal, $kind:ident of $unit:ident by [$($label:literal),*];)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// Every metric there is.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: concat!($($help),+),
        }),+];
    };
}

metrics! {
    /// Commands answered, by `outcome`: `accepted`, `nothing` (nothing had to change), `duplicate` (the id had been
    /// accepted before), or the code of the problem.
    COMMANDS_TOTAL = "airstream_commands_total", Counter of Count by ["category", "command", "outcome"];
    /// Time from handing a command to the executor until its answer, waiting included.
    COMMAND_DURATION_SECONDS = "airstream_command_duration_seconds", Histogram of Seconds by [];
    /// Commands that wait or run in this process, all shards together.
    EXECUTOR_WAITING = "airstream_executor_waiting", Gauge of Count by [];
    /// Appends refused by the guard and decided again: another writer was faster.
    APPEND_CONFLICTS_TOTAL = "airstream_append_conflicts_total", Counter of Count by [];
    /// Appends whose outcome had to be read back from the log.
    APPEND_AMBIGUOUS_TOTAL = "airstream_append_ambiguous_total", Counter of Count by [];
    /// Snapshots of streams by `outcome`: `used` (a long stream was loaded from one), `absent`, `behind`, `refused` (it did not
    /// fit the log or could not be read, and was deleted), `unreachable` (the store failed or was late; the stream was folded
    /// from the log), `stored`, `not_stored` (the store failed), `too_large`, `skipped` (enough are being stored already).
    SNAPSHOTS_TOTAL = "airstream_snapshots_total", Counter of Count by ["outcome"];
    /// Commits written together with one flush.
    GROUP_COMMIT_SIZE = "airstream_group_commit_size", Histogram of Count by [];
    /// Time from handing a group of commits to the log until it was acknowledged.
    APPEND_DURATION_SECONDS = "airstream_append_duration_seconds", Histogram of Seconds by [];
    /// Whether the log took the last commit (1) or refused it, or did not answer (0).
    LOG_WRITABLE = "airstream_log_writable", Gauge of Count by [];
    /// Whether the log was known at the start to sync to disk before it acknowledges (1), or not (0).
    LOG_DURABLE = "airstream_log_durable", Gauge of Count by [];

    /// The newest position of the log that the consumer has seen.
    CONSUMER_HEAD_SEQUENCE = "airstream_consumer_head_sequence", Gauge of Count by ["consumer"];
    /// The last position that the consumer has handled or parked.
    CONSUMER_CHECKPOINT_SEQUENCE = "airstream_consumer_checkpoint_sequence", Gauge of Count by ["consumer"];
    /// Commits that the consumer has yet to handle; 0 on an instance that stands by.
    CONSUMER_LAG_EVENTS = "airstream_consumer_lag_events", Gauge of Count by ["consumer"];
    /// Age of the oldest commit that the consumer has yet to handle; 0 when it has caught up, however quiet the log is,
    /// and on an instance that stands by.
    CONSUMER_LAG_SECONDS = "airstream_consumer_lag_seconds", Gauge of Seconds by ["consumer"];
    /// Unix time at which the consumer's loop last turned on this instance: a quiet log must not look like a dead loop. It
    /// stands still on an instance that stands by, so the newest of all instances is what counts.
    CONSUMER_HEARTBEAT_TIMESTAMP_SECONDS = "airstream_consumer_heartbeat_timestamp_seconds", Gauge of Seconds by ["consumer"];
    /// Streams that the consumer has set aside: their commits wait for a person.
    CONSUMER_PARKED_STREAMS = "airstream_consumer_parked_streams", Gauge of Count by ["consumer"];
    /// Commits in the consumer's parking lot, causes and those behind them.
    CONSUMER_PARKED_COMMITS = "airstream_consumer_parked_commits", Gauge of Count by ["consumer"];
    /// For how long the oldest commit or effect that the consumer has parked has been waiting for a person; 0 when nothing is
    /// parked.
    CONSUMER_PARKED_SECONDS = "airstream_consumer_parked_seconds", Gauge of Seconds by ["consumer"];
    /// Messages in the log that no writer of ours wrote, passed over. Somebody misdirects answers into the log.
    FOREIGN_MESSAGES_TOTAL = "airstream_foreign_messages_total", Counter of Count by ["consumer"];

    /// Programs that wanted to come in on the bus, by `outcome`: `admitted`, `refused`.
    BUS_KNOCKS_TOTAL = "airstream_bus_knocks_total", Counter of Count by ["outcome"];
    /// How often somebody who may do less than before was cut off from the bus.
    BUS_CUTS_TOTAL = "airstream_bus_cuts_total", Counter of Count by [];
    /// Events that the live feed has sent.
    FEED_EVENTS_TOTAL = "airstream_feed_events_total", Counter of Count by [];

    /// Tries of effects, by `outcome`: `done`, `retry`, `parked`.
    EFFECTS_TOTAL = "airstream_effects_total", Counter of Count by ["consumer", "outcome"];
    /// Effects recorded and not done, by `state`: `scheduled` (waits for its time, a permit or another try) or `parked`
    /// (waits for a person).
    EFFECTS = "airstream_effects", Gauge of Count by ["consumer", "state"];
    /// Time from the moment an effect was due until it was begun: how late timers ring.
    EFFECT_LATENESS_SECONDS = "airstream_effect_lateness_seconds", Histogram of Seconds by ["consumer"];

    /// 1 for a lease that this instance holds, 0 for one that it held.
    LEASE_HELD = "airstream_lease_held", Gauge of Count by ["lease"];
    /// Leases of this instance that began or ended, by `change`: `acquired`, `released` (given up in order), `lost` (it hung,
    /// or could not reach the record of leases).
    LEASE_CHANGES_TOTAL = "airstream_lease_changes_total", Counter of Count by ["change"];

    /// What waits at a door: requests being answered by this process (`http`, `bus`), messages in a stream of NATS that all
    /// instances share (`queue`: commands, `work`: tasks for workers).
    DOOR_DEPTH = "airstream_door_depth", Gauge of Count by ["door"];
    /// Connections that the HTTP door has open, idle ones included.
    HTTP_CONNECTIONS = "airstream_http_connections", Gauge of Count by [];
    /// Connections beyond the most that there may be at once, told so or hung up on.
    HTTP_CONNECTIONS_REFUSED_TOTAL = "airstream_http_connections_refused_total", Counter of Count by [];
    /// Time from the arrival of an HTTP request until its response began.
    HTTP_REQUEST_DURATION_SECONDS = "airstream_http_request_duration_seconds", Histogram of Seconds by ["method", "route", "status"];

    /// HTTP requests refused because somebody asks too often, by `policy`: whose limit, and for which class of routes.
    RATE_LIMITED_TOTAL = "airstream_rate_limited_total", Counter of Count by ["policy"];

    /// Whether the connection to NATS is up (1) or being made anew (0).
    NATS_CONNECTED = "airstream_nats_connected", Gauge of Count by [];
    /// Times the connection to NATS was made anew.
    NATS_RECONNECTS_TOTAL = "airstream_nats_reconnects_total", Counter of Count by [];
    /// Connections of the pool to Postgres, by `state`: `used` or `idle`. Owners of consumers have one more each.
    POSTGRES_POOL_CONNECTIONS = "airstream_postgres_pool_connections", Gauge of Count by ["state"];
    /// Connections that the pool to Postgres may have.
    POSTGRES_POOL_LIMIT = "airstream_postgres_pool_limit", Gauge of Count by [];
    /// Unix time at which queue depths and counts of parked things were last read: when it stands still, so do they.
    SAMPLED_TIMESTAMP_SECONDS = "airstream_sampled_timestamp_seconds", Gauge of Seconds by [];

    /// Always 1; the labels tell what runs.
    BUILD_INFO = "airstream_build_info", Gauge of Count by ["version"];
    /// Processor time used by this process, user and system.
    PROCESS_CPU_SECONDS_TOTAL = "process_cpu_seconds_total", Gauge of Seconds by [];
    /// Memory of this process that is in RAM.
    PROCESS_RESIDENT_MEMORY_BYTES = "process_resident_memory_bytes", Gauge of Bytes by [];
    /// Files and sockets that this process has open.
    PROCESS_OPEN_FDS = "process_open_fds", Gauge of Count by [];
    /// Files and sockets that this process may have open.
    PROCESS_MAX_FDS = "process_max_fds", Gauge of Count by [];
    /// Unix time at which this process began to run the platform.
    PROCESS_START_TIME_SECONDS = "process_start_time_seconds", Gauge of Seconds by [];
    /// Tries to hand over a mail, by `outcome`: `sent`, `retry` (not taken now), `given_up` (refused for good, or too old).
    MAILS_TOTAL = "airstream_mails_total", Counter of Count by ["kind", "outcome"];
    /// How long the oldest mail has been waiting to be sent. Told by the instance that sends.
    MAIL_WAITING_SECONDS = "airstream_mail_waiting_seconds", Gauge of Seconds by [];
}

/// Tells the installed recorder what every metric means, and shows those without labels from the start: a counter that
/// appears only with its first increment hides that increment from `rate`.
pub fn describe() {
    for metric in METRICS {
        let (name, unit, help) = (metric.name, metric.unit, metric.help.trim());
        match metric.kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
        if metric.labels.is_empty() {
            match metric.kind {
                Kind::Counter => counter!(name).increment(0),
                Kind::Gauge => gauge!(name).increment(0.0),
                // It appears with its first record; there is no empty one.
                Kind::Histogram => drop(histogram!(name)),
            }
        }
    }
    for change in ["acquired", "released", "lost"] {
        counter!(LEASE_CHANGES_TOTAL, "change" => change).increment(0);
    }
    for outcome in
        ["used", "absent", "behind", "refused", "unreachable", "stored", "not_stored", "too_large", "skipped"]
    {
        counter!(SNAPSHOTS_TOTAL, "outcome" => outcome).increment(0);
    }
}

/// A request that a door of this process has in hand, until it is dropped: answered, or its caller gone.
pub struct InHand(metrics::Gauge);

impl InHand {
    /// Counts one more at a door.
    #[must_use]
    pub fn at(door: &'static str) -> Self {
        let depth = gauge!(DOOR_DEPTH, "door" => door);
        depth.increment(1.0);
        Self(depth)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_kind_and_their_unit() {
        for metric in METRICS {
            let name = metric.name;
            // Prometheus' own name for a number that we can only set: it is a counter to whoever reads it.
            let counts = metric.kind == Kind::Counter || name == PROCESS_CPU_SECONDS_TOTAL;
            assert_eq!(name.ends_with("_total"), counts, "{name}");
            let unit = name.trim_end_matches("_total");
            assert_eq!(unit.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert_eq!(unit.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
            assert!(metric.help.trim().ends_with('.'), "{name} has no sentence: {}", metric.help);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
