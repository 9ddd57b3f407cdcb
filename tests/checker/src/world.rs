//! What the runs of the log called for in the world: every effect recorded, every one done, and nothing besides.
//!
//! Apart from the other laws, because it knows the reactor of runs and looks at a world that has come to rest. A
//! simulation with a reactor of its own has other effects.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::History;
use crate::{Evidence, Found};

const CONSUMER: &str = "workflow-steps";

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    let wanted = called_for(history);
    let mut recorded = BTreeSet::new();
    for effect in evidence.effects.iter().filter(|effect| effect.consumer == CONSUMER) {
        let key = (effect.stream.clone(), effect.name.clone());
        if effect.state != "done" {
            let sentence = format!("`{}` of `{}` is still {}", effect.name, effect.stream, effect.state);
            found.add("every effect comes to an end", sentence);
        }
        if !wanted.contains_key(&key) {
            let sentence =
                format!("`{}` is recorded for `{}`, whose events do not call for it", effect.name, effect.stream);
            found.add("an effect comes from the log", sentence);
        }
        recorded.insert(key);
    }
    for ((stream, name), _) in wanted.iter().filter(|(key, needed)| **needed && !recorded.contains(*key)) {
        found.add("every effect is recorded", format!("`{name}` of `{stream}` was called for and is not recorded"));
    }
    requests(evidence, history, found);
}

/// Effects by stream and name, and whether the record must have them: a cancelled one may have been done before it was
/// cancelled, or not.
fn called_for(history: &History) -> BTreeMap<(String, String), bool> {
    let mut wanted = BTreeMap::new();
    for (commit, event) in history.events_of("run") {
        let stream = &commit.stream;
        let step = event.data["step"].as_str().unwrap_or_default();
        let attempt = event.data["attempt"].as_u64().unwrap_or_default();
        let name = |what: &str| format!("{step}/{attempt}/{what}");
        let calls = match event.kind.as_str() {
            "run.step_scheduled" => match event.data["kind"].as_str().unwrap_or_default() {
                "task" => vec![(name("offer"), true)],
                "wait" => vec![(name("wait"), true)],
                "http" => vec![(name("request"), true), (name("deadline"), true)],
                _ => vec![],
            },
            "run.step_started" => vec![(name("deadline"), true)],
            "run.step_returned" => {
                vec![(name("deadline"), false), (format!("{}/{}", name("offer"), event.version), true)]
            }
            // A wait or a pass has none.
            "run.step_completed" | "run.step_failed" => {
                wanted.entry((stream.clone(), name("deadline"))).and_modify(|needed| *needed = false);
                vec![]
            }
            "run.step_retry_scheduled" => vec![(name("retry"), true)],
            _ => vec![],
        };
        wanted.extend(calls.into_iter().map(|(name, needed)| ((stream.clone(), name), needed)));
    }
    wanted
}

/// A completed `http` step was asked for outside, and nobody was asked who is not in the log.
fn requests(evidence: &Evidence, history: &History, found: &mut Found) {
    let asked: BTreeSet<(&str, &str)> =
        evidence.performed.iter().map(|performed| (performed.stream.as_str(), performed.name.as_str())).collect();
    let mut http = BTreeSet::new();
    for (commit, event) in history.events_of("run") {
        let step = event.data["step"].as_str().unwrap_or_default();
        let key = (commit.stream.as_str(), step);
        if event.kind == "run.step_scheduled" && event.data["kind"] == "http" {
            http.insert(key);
        }
        if event.kind == "run.step_completed" && http.contains(&key) && !asked.contains(&key) {
            let sentence = format!("`{step}` of `{}` is completed, and nobody was asked", commit.stream);
            found.add("a completed request was made", sentence);
        }
    }
    for (stream, step) in asked.iter().filter(|key| !http.contains(*key)) {
        found
            .add("a request comes from the log", format!("`{step}` of `{stream}` was asked for and is not in the log"));
    }
}

#[cfg(test)]
mod tests {
    use crate::{Effect, Evidence, Message, Performed, check_world};
    use serde_json::{Value, json};

    const RUN: &str = "t/run/r";

    fn evidence(events: &[(&str, Value)], effects: &[(&str, &str)], requests: &[&str]) -> Evidence {
        let batch: Vec<Value> = events
            .iter()
            .enumerate()
            .map(|(index, (kind, data))| {
                json!({
                    "specversion": "1.0", "id": format!("c.{index}"), "source": "/t/run", "subject": "r", "type": kind,
                    "time": "2026-01-01T00:00:00Z", "dataschema": format!("urn:airstream:schema:{kind}:1"),
                    "tenantid": "t", "streamversion": index + 1, "commitid": "c", "correlationid": "c",
                    "causationid": "c", "actor": "ann", "command": "start", "commandhash": "0", "data": data,
                })
            })
            .collect();
        let subject = format!("ev.{}.t.run.r", crate::log::shard(RUN));
        let payload = serde_json::to_vec(&batch).unwrap_or_default();
        let effect = |(name, state): &(&str, &str)| Effect {
            consumer: super::CONSUMER.to_owned(),
            stream: RUN.to_owned(),
            name: (*name).to_owned(),
            state: (*state).to_owned(),
        };
        let performed = |step: &&str| Performed {
            consumer: super::CONSUMER.to_owned(),
            stream: RUN.to_owned(),
            name: (*step).to_owned(),
            key: "k".to_owned(),
        };
        Evidence {
            log: vec![Message { sequence: 1, subject, guarded: true, payload }],
            effects: effects.iter().map(effect).collect(),
            performed: requests.iter().map(performed).collect(),
            ..Evidence::default()
        }
    }

    fn http() -> Vec<(&'static str, Value)> {
        let step = json!({ "step": "call", "attempt": 1, "kind": "http" });
        vec![("run.step_scheduled", step.clone()), ("run.step_completed", step)]
    }

    #[track_caller]
    fn breaks(evidence: &Evidence, law: &str) {
        let found = check_world(evidence);
        assert!(found.iter().any(|violation| violation.law == law), "{found:?}");
    }

    #[test]
    fn effects_that_the_log_calls_for_are_recorded_and_done() {
        let done = [("call/1/request", "done")];
        assert_eq!(check_world(&evidence(&http(), &done, &["call"])), []);
        breaks(&evidence(&http(), &[], &["call"]), "every effect is recorded");
        breaks(&evidence(&http(), &[("call/1/request", "scheduled")], &["call"]), "every effect comes to an end");
        breaks(&evidence(&http(), &[done[0], ("x/1/wait", "done")], &["call"]), "an effect comes from the log");
    }

    #[test]
    fn requests_and_completed_steps_belong_together() {
        let done = [("call/1/request", "done")];
        breaks(&evidence(&http(), &done, &[]), "a completed request was made");
        breaks(&evidence(&http(), &done, &["call", "other"]), "a request comes from the log");
    }

    #[test]
    fn an_attempt_that_is_claimed_again_has_a_deadline_again() {
        let step = json!({ "step": "a", "attempt": 1, "kind": "task" });
        let claimed = ("run.step_started", step.clone());
        let events = [("run.step_scheduled", step.clone()), claimed.clone(), ("run.step_returned", step), claimed];
        let offers = [("a/1/offer", "done"), ("a/1/offer/3", "done")];
        breaks(&evidence(&events, &offers, &[]), "every effect is recorded");
        let all = [offers[0], offers[1], ("a/1/deadline", "done")];
        assert_eq!(check_world(&evidence(&events, &all, &[])), []);
    }
}
