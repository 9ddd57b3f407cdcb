//! Queued commands of a stream are executed once, in the order in which the queue took them, and leave a trace.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::log::History;
use crate::{Evidence, Found, Queued};

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    let refused = refused(history);
    let mut streams: BTreeMap<&str, Vec<&Queued>> = BTreeMap::new();
    for queued in &evidence.queued {
        streams.entry(&queued.stream).or_default().push(queued);
    }
    for (stream, mut commands) in streams {
        commands.sort_by_key(|queued| queued.place);
        let mut before: Option<(&Queued, u64)> = None;
        for queued in commands {
            let commit = history.of(stream, &queued.command_id).next();
            let was_refused = refused.contains(&(stream.to_owned(), queued.command_id.clone()));
            let id = &queued.command_id;
            match commit {
                Some(commit) => {
                    if let Some((earlier, position)) = before
                        && position > commit.position
                    {
                        let sentence = format!(
                            "on `{stream}` the queued `{id}` (place {}) was executed at position {}, before `{}` (place \
                             {}) at {position}",
                            queued.place, commit.position, earlier.command_id, earlier.place
                        );
                        found.add("queued commands keep their order", sentence);
                    }
                    if was_refused {
                        let sentence = format!(
                            "the queued `{id}` on `{stream}` is in the inbox as refused and has a commit at {}",
                            commit.position
                        );
                        found.add("a queued command has one outcome", sentence);
                    }
                    before = Some((queued, commit.position));
                }
                None if queued.leaves_a_trace && !was_refused => {
                    let sentence = format!("the queued `{id}` on `{stream}` (place {}) left no trace", queued.place);
                    found.add("queued commands are executed", sentence);
                }
                None => {}
            }
        }
    }
}

/// What the inbox has: stream and command id of every refusal.
fn refused(history: &History) -> BTreeSet<(String, String)> {
    let rejections = history.events_of("inbox").filter(|(_, event)| event.kind == "inbox.command_rejected");
    let word = |data: &Value, name: &str| data[name].as_str().unwrap_or_default().to_owned();
    rejections
        .map(|(commit, event)| {
            let stream = format!("{}/{}/{}", commit.tenant, word(&event.data, "category"), word(&event.data, "id"));
            (stream, word(&event.data, "command_id"))
        })
        .collect()
}
