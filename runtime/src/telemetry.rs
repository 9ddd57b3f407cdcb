//! Names of metrics, in one place. Units last; `_total` for counters.

/// Commands answered, by `category`, `command` and `outcome` (`accepted`, `nothing`, `duplicate`, or a problem's code).
pub const COMMANDS_TOTAL: &str = "airstream_commands_total";
/// Seconds from the door to the answer.
pub const COMMAND_DURATION_SECONDS: &str = "airstream_command_duration_seconds";
/// Appends refused by the guard and decided again.
pub const APPEND_CONFLICTS_TOTAL: &str = "airstream_append_conflicts_total";
/// Appends whose outcome had to be read back.
pub const APPEND_AMBIGUOUS_TOTAL: &str = "airstream_append_ambiguous_total";
/// Snapshots of streams by `outcome`: `used` (a long stream was loaded from one), `absent`, `behind`, `refused` (it did not fit
/// the log or could not be read, and was deleted), `unreachable` (the store failed or was late; the stream was folded from
/// the log), `stored`, `not_stored` (the store failed), `too_large`, `skipped` (enough are being stored already).
pub const SNAPSHOTS_TOTAL: &str = "airstream_snapshots_total";
/// Commits written together with one flush.
pub const GROUP_COMMIT_SIZE: &str = "airstream_group_commit_size";
/// Seconds from handing a group to the log until it was acknowledged.
pub const APPEND_DURATION_SECONDS: &str = "airstream_append_duration_seconds";
/// The log's newest position, as last seen by a consumer.
pub const CONSUMER_HEAD_SEQUENCE: &str = "airstream_consumer_head_sequence";
/// How far a consumer has come, by `consumer`.
pub const CONSUMER_CHECKPOINT_SEQUENCE: &str = "airstream_consumer_checkpoint_sequence";
/// Events a consumer has yet to see, by `consumer`.
pub const CONSUMER_LAG_EVENTS: &str = "airstream_consumer_lag_events";
/// Unix time at which a consumer's loop last turned, by `consumer`: a quiet log must not look like a dead loop.
pub const CONSUMER_HEARTBEAT_TIMESTAMP_SECONDS: &str = "airstream_consumer_heartbeat_timestamp_seconds";
/// Streams that a consumer has set aside, by `consumer`: their commits wait for a person.
pub const CONSUMER_PARKED_STREAMS: &str = "airstream_consumer_parked_streams";
/// Messages in the log that no writer of ours wrote, passed over by `consumer`. Somebody misdirects answers into the log.
pub const FOREIGN_MESSAGES_TOTAL: &str = "airstream_foreign_messages_total";
/// Leases of this instance that began or ended, by `change` (`acquired`, `released`, `lost`). `lost` means that it hung.
pub const LEASE_CHANGES_TOTAL: &str = "airstream_lease_changes_total";
/// 1 for a lease that this instance holds, 0 for one that it could hold, by `lease`.
pub const LEASE_HELD: &str = "airstream_lease_held";
/// Effects performed, by `consumer` and `outcome` (`done`, `retry`, `parked`).
pub const EFFECTS_TOTAL: &str = "airstream_effects_total";
