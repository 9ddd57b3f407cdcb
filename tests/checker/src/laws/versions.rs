//! Versions count a stream's events from 1, without a hole, in the order of the log.

use crate::Found;
use crate::log::History;

pub(crate) fn check(history: &History, found: &mut Found) {
    for (stream, commits) in history.streams() {
        let mut expected = 1;
        for commit in commits {
            for event in &commit.events {
                if event.version != expected {
                    let sentence = format!(
                        "`{stream}` has version {} where {expected} should be (position {}, command id `{}`, `{}`)",
                        event.version, commit.position, commit.id, event.kind
                    );
                    found.add("versions have no hole", sentence);
                }
                expected = event.version + 1;
            }
        }
    }
}
