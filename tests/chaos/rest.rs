//! Waiting until everything is quiet: no lag, no effect that waits for its time, empty queues, every run at its end.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::drive::Driven;
use crate::mix::Command;
use crate::profile::Profile;
use crate::world::{World, comes};

/// What is not at rest yet, one line each.
async fn unrest(world: &World, driven: &Driven) -> Result<Vec<String>, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let jetstream = &driven.callers.inside;
    let mut found = Vec::new();
    for queue in ["COMMANDS", "TASKS"] {
        let stream = jetstream.get_stream(queue).await.map_err(|error| failed(&error))?;
        // Offers of the task that nobody does stay where they are.
        let left = match queue {
            "TASKS" => offers(&stream).await.map_err(|error| failed(&error))?,
            _ => stream.cached_info().state.messages,
        };
        if left > 0 {
            found.push(format!("{left} messages in {queue}"));
        }
    }
    let log = jetstream.get_stream("EVENTS").await.map_err(|error| failed(&error))?;
    let head = log.cached_info().state.last_sequence as i64;
    let mut postgres = PgConnection::connect(&world.stack.postgres().url).await.map_err(|error| failed(&error))?;
    let questions = [
        ("consumers behind the log", "SELECT count(*) FROM airstream.checkpoints WHERE position < $1"),
        ("effects that wait", "SELECT count(*) FROM airstream.effects WHERE state = 'scheduled' AND $1 >= 0"),
        ("open runs", "SELECT count(*) FROM runs_v1.runs WHERE status = 'running' AND $1 >= 0"),
    ];
    for (what, sql) in questions {
        let count: i64 =
            sqlx::query_scalar(sql).bind(head).fetch_one(&mut postgres).await.map_err(|error| failed(&error))?;
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    }
    Ok(found)
}

async fn offers(stream: &async_nats::jetstream::stream::Stream) -> Result<u64, async_nats::Error> {
    use futures::TryStreamExt;
    let subjects: Vec<(String, usize)> = stream.info_with_subjects("tasks.>").await?.try_collect().await?;
    Ok(subjects.iter().filter(|(subject, _)| !subject.ends_with(".never")).map(|(_, count)| *count as u64).sum())
}

/// Ends what nobody else would end, and waits. What is still not at rest after that is a finding.
pub(crate) async fn reached(profile: &Profile, world: &World, driven: &Driven) -> Vec<String> {
    let began = Instant::now();
    let (mut last, mut quiet, mut asked) = (Vec::new(), 0, BTreeSet::new());
    let at_rest = comes(profile.rest_within, async || {
        match unrest(world, driven).await {
            Ok(unrest) if unrest.is_empty() => quiet += 1,
            Ok(unrest) => {
                quiet = 0;
                if unrest != last {
                    eprintln!("{:>4} s  not at rest: {}", began.elapsed().as_secs(), unrest.join(", "));
                }
                last = unrest;
            }
            Err(error) => last = vec![error],
        }
        if quiet == 0 {
            cancel_what_waits_for_nobody(world, driven, &mut asked).await;
        }
        // Several times in a row: between two questions an effect may have made a commit that calls for another effect.
        quiet >= 3
    });
    if at_rest.await {
        return Vec::new();
    }
    last.iter().map(|unrest| format!("not at rest after {} s: {unrest}", profile.rest_within.as_secs())).collect()
}

/// Runs of a task that nobody does. Each is asked once: the rows may take a moment to show it.
async fn cancel_what_waits_for_nobody(world: &World, driven: &Driven, asked: &mut BTreeSet<String>) {
    let Ok(mut postgres) = PgConnection::connect(&world.stack.postgres().url).await else { return };
    let sql = "SELECT run_id FROM runs_v1.runs WHERE workflow_id = 'never' AND status = 'running'";
    let runs: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut postgres).await.unwrap_or_default();
    for run in runs {
        if asked.insert(run.clone()) {
            let body = json!({ "reason": "nobody does it" });
            driven.callers.ask(0, &Command::new(format!("end-{run}"), "run", run, "cancel", body)).await;
        }
    }
}
