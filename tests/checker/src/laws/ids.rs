//! A command id has at most one commit on a stream, for ever.

use std::collections::BTreeMap;

use crate::Found;
use crate::log::History;

pub(crate) fn check(history: &History, found: &mut Found) {
    for (stream, commits) in history.streams() {
        let mut first: BTreeMap<&str, u64> = BTreeMap::new();
        for commit in commits {
            if let Some(before) = first.insert(&commit.id, commit.position) {
                let sentence = format!(
                    "the command id `{}` is twice on `{stream}`, at positions {before} and {}",
                    commit.id, commit.position
                );
                found.add("a command counts once", sentence);
            }
        }
    }
}
