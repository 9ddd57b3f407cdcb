//! What callers heard is what stands in the log.
//!
//! * Accepted: exactly one commit, and position, version and event types are those of every answer.
//! * A no, a nothing-to-do, or a not-now, and never an unknown before it: no commit. After a try whose outcome was
//!   unknown, that try may still have been taken, and then the log has at most one commit (the law of ids).
//! * One command id is never answered in two ways.

use std::collections::BTreeMap;

use crate::log::{Commit, History};
use crate::{Asked, Evidence, Found, Outcome};

const TRUE: &str = "an answer is true";
const ONE: &str = "a command id has one answer";

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    let mut callers: BTreeMap<(&str, &str), Vec<&Asked>> = BTreeMap::new();
    for asked in &evidence.asked {
        callers.entry((&asked.stream, &asked.command_id)).or_default().push(asked);
    }
    for ((stream, id), tries) in callers {
        let commits: Vec<&Commit> = history.of(stream, id).collect();
        one_answer(stream, id, &tries, found);
        let accepted = tries.iter().find(|asked| matches!(asked.outcome, Outcome::Accepted { .. }));
        let unknown = tries.iter().any(|asked| asked.outcome == Outcome::Unknown);
        match accepted {
            Some(asked) => as_in_the_log(asked, &commits, found),
            None if !unknown => {
                for commit in commits {
                    let heard = tries.last().map(|asked| &asked.outcome);
                    let sentence = format!(
                        "`{id}` on `{stream}` has a commit at position {}, though its caller heard {heard:?}",
                        commit.position
                    );
                    found.add(TRUE, sentence);
                }
            }
            None => {}
        }
    }
}

fn as_in_the_log(asked: &Asked, commits: &[&Commit], found: &mut Found) {
    let Outcome::Accepted { position, version, events } = &asked.outcome else { return };
    let (stream, id, command) = (&asked.stream, &asked.command_id, &asked.command);
    let Some(commit) = commits.first() else {
        let sentence = format!("`{id}` (`{command}`) on `{stream}` was accepted at {position} and is not in the log");
        found.add("what was accepted is in the log", sentence);
        return;
    };
    let types: Vec<&str> = commit.events.iter().map(|event| event.kind.as_str()).collect();
    let last = commit.events.last();
    let same = commit.position == *position
        && last.is_some_and(|event| event.version == *version)
        && types == *events
        && commit.events.iter().all(|event| event.command == *command);
    if !same {
        let sentence = format!(
            "`{id}` (`{command}`) on `{stream}` was answered with position {position}, version {version} and {events:?}; \
             the log has position {}, version {:?} and {types:?} of `{}`",
            commit.position,
            last.map(|event| event.version),
            commit.events.first().map_or("", |event| event.command.as_str()),
        );
        found.add(TRUE, sentence);
    }
}

fn one_answer(stream: &str, id: &str, tries: &[&Asked], found: &mut Found) {
    let is_final = |asked: &&&Asked| !matches!(asked.outcome, Outcome::NotNow { .. } | Outcome::Unknown);
    let mut answers = tries.iter().filter(is_final);
    let Some(first) = answers.next() else { return };
    for other in answers.filter(|other| other.outcome != first.outcome || other.command != first.command) {
        let sentence =
            format!("`{id}` on `{stream}` was first answered {:?} and later {:?}", first.outcome, other.outcome);
        found.add(ONE, sentence);
    }
}
