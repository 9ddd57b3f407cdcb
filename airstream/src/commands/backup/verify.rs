//! `airstream backup verify`: the hashes first, then the honest part: the streams are restored into a nats-server that is thrown
//! away afterwards, and every commit is read.

use std::path::Path;

use serde_json::json;

use super::check::{self, Finding, Seen};
use super::folder::Folder;
use crate::commands::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::bytes;
use crate::up;

pub(super) async fn run(context: &Context<'_>, path: &Path) -> Outcome {
    let console = context.console;
    if !path.is_dir() {
        return Err(Failure::new(Exit::NotFound, format!("{} is not a folder", path.display())));
    }
    let folder = match Folder::open(path) {
        Ok(folder) => folder,
        Err(problem) => return report(context, path, None, &[Finding::new("manifest", problem)]),
    };
    let bar = console.bytes_bar("hashes", Some(folder.manifest.bytes()));
    let faults = folder.faults(|done| bar.set_position(done)).await;
    bar.finish_and_clear();
    let mut findings: Vec<Finding> = faults.into_iter().map(|(file, fault)| Finding::new(&file, fault)).collect();
    let mut seen = None;
    // What is not what was written tells nothing more when it is read.
    if findings.is_empty() {
        let options = embedded::Options {
            ephemeral: true,
            // Not asked for anything: only NATS is started.
            postgres_url: Some("postgres://nobody".to_owned()),
            ..up::stack_options(&context.config(&[])?.config, true)?
        };
        let options = embedded::Options { nats_url: None, ..options };
        let stack = embedded::start(options, |_| {}).await?;
        let read = check::read_through(console, &folder, &stack).await;
        stack.stop().await;
        let (found, read) = read?;
        findings = found;
        seen = Some(read);
    }
    if let Err(error) = folder.note_verified(findings.is_empty()) {
        console.say(&format!("could not note the result beside the backup: {error}"));
    }
    report(context, path, seen.as_ref().map(|seen| (&folder, seen)), &findings)
}

fn report(context: &Context<'_>, path: &Path, seen: Option<(&Folder, &Seen)>, findings: &[Finding]) -> Outcome {
    let console = context.console;
    if console.is_json() {
        let seen = seen.map(|(_, seen)| seen);
        console.json(&json!({"path": path, "good": findings.is_empty(), "seen": seen, "items": findings}))?;
    } else {
        for finding in findings {
            console.line(&format!("{}: {}", finding.part, finding.problem))?;
        }
        if let Some((folder, seen)) = seen {
            console.say(&format!(
                "{}: {} commits of {} streams up to {}, {} queued commands, {} tasks",
                bytes(folder.manifest.bytes()),
                seen.commits,
                seen.streams,
                folder.manifest.position(),
                seen.queued,
                seen.tasks
            ));
            if seen.foreign + seen.unreadable_and_known > 0 {
                console.say(&format!(
                    "{} foreign messages, {} commits that cannot be read and are parked or skipped: they were so in the log",
                    seen.foreign, seen.unreadable_and_known
                ));
            }
        }
    }
    if findings.is_empty() {
        console.say("good");
        return Ok(());
    }
    console.say(&format!("do not count on {}", path.display()));
    Err(Failure::silent(Exit::Findings))
}
