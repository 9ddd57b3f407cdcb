//! No run is stuck: every run that started came to an end, and nothing happened to it afterwards.

use std::collections::BTreeMap;

use crate::log::History;
use crate::{Evidence, Found};

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    let mut runs: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for (commit, event) in history.events_of("run") {
        let end = runs.entry(&commit.stream).or_default();
        if let Some(end) = end {
            let sentence =
                format!("`{}` ended at position {end} and has `{}` at {}", commit.stream, event.kind, commit.position);
            found.add("a run ends once", sentence);
        }
        if ["run.completed", "run.failed", "run.cancelled"].contains(&event.kind.as_str()) {
            *end = Some(commit.position);
        }
    }
    for (stream, _) in runs.iter().filter(|(stream, end)| end.is_none() && !evidence.open_runs.contains(**stream)) {
        let last = history.events_of("run").filter(|(commit, _)| commit.stream == *stream).last();
        let (position, kind) = last.map_or((0, ""), |(commit, event)| (commit.position, event.kind.as_str()));
        found.add(
            "no run is stuck",
            format!("`{stream}` has not ended; its last word is `{kind}` at position {position}"),
        );
    }
}
