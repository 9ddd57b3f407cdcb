//! Positions count the log's messages from 1, without a hole.

use crate::{Evidence, Found};

pub(crate) fn check(evidence: &Evidence, found: &mut Found) {
    let mut expected = 1;
    for message in &evidence.log {
        if message.sequence != expected {
            let sentence =
                format!("position {} (`{}`) stands where {expected} should", message.sequence, message.subject);
            found.add("positions have no hole", sentence);
        }
        expected = message.sequence + 1;
    }
}
