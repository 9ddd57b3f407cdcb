//! Every statement of this crate, for the test that prepares them against the migrated schema.

use crate::{commits, effects, inbox, machinery, runs, status, workflows};

/// Each statement with the schema that its unqualified names stand in.
#[must_use]
pub fn all() -> Vec<(&'static str, &'static str)> {
    vec![
        ("public", machinery::BEGIN),
        ("public", machinery::CHECKPOINT),
        ("public", machinery::OWN),
        ("public", machinery::PARKED_SUBJECTS),
        ("public", machinery::ADVANCE),
        ("public", machinery::PARK),
        ("public", machinery::RELEASED),
        ("public", machinery::UNPARK),
        ("public", machinery::PARK_AGAIN),
        ("public", machinery::CLEAR_RELEASED),
        ("public", machinery::SKIPPED_ALONE),
        ("public", effects::RECORD),
        ("public", effects::CANCEL),
        ("public", effects::PENDING),
        ("public", effects::SETTLE),
        ("public", effects::REVIVED),
        ("commits_v1", commits::INSERT),
        ("public", commits::FIND),
        ("public", commits::LIST),
        ("public", commits::BY_ID),
        ("public", commits::NTH_NEWEST),
        ("public", commits::OLDEST),
        ("workflows_v1", workflows::DEFINE),
        ("workflows_v1", workflows::UPSERT),
        ("public", workflows::LIST),
        ("public", workflows::GET),
        ("runs_v1", runs::LOAD_RUNS),
        ("runs_v1", runs::LOAD_STEPS),
        ("runs_v1", runs::STORE_RUNS),
        ("runs_v1", runs::STORE_STEPS),
        ("public", runs::GET),
        ("public", runs::LIST),
        ("public", runs::STEPS),
        ("inbox_v1", inbox::REJECT),
        ("inbox_v1", inbox::DISMISS),
        ("public", inbox::LIST),
        ("public", inbox::BY_COMMAND),
        ("public", status::CONSUMERS),
        ("public", status::PARKED),
        ("public", status::RETRY),
        ("public", status::RETRY_EFFECT),
        ("public", status::SKIP),
        ("public", status::IS_SKIPPED),
        ("public", status::SKIP_EFFECT),
    ]
}
