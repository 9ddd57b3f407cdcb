//! Workers: they ask for tasks over NATS, and do what workers do: the work, a mistake, or nothing any more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caller::Callers;
use crate::dice::Dice;
use crate::mix::Command;
use crate::profile::Profile;

/// The tasks that somebody does.
const NAMES: [&str; 2] = ["a", "b"];

/// Starts them; they go on until `stop`.
pub(crate) fn start(profile: &Profile, callers: &Arc<Callers>, stop: &CancellationToken) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for number in 0..profile.workers {
        let (callers, stop, seed) = (Arc::clone(callers), stop.clone(), profile.seed);
        workers.spawn(async move {
            while !stop.is_cancelled() {
                if let Some(task) = next(&callers, number).await {
                    perform(&callers, number, seed, &task).await;
                }
            }
        });
    }
    workers
}

async fn next(callers: &Callers, number: u64) -> Option<Value> {
    let name = NAMES[number as usize % NAMES.len()];
    let asking = json!({ "worker": format!("worker-{number}"), "wait_ms": 1_000 }).to_string();
    let Ok(reply) = callers.nats(number).request(format!("work.dev.dev.{name}"), asking.into()).await else {
        tokio::time::sleep(Duration::from_millis(100)).await;
        return None;
    };
    let reply: Value = serde_json::from_slice(&reply.payload).ok()?;
    reply.get("task").filter(|task| task.is_object()).cloned()
}

async fn perform(callers: &Callers, number: u64, seed: u64, task: &Value) {
    let word = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
    let (key, attempt) = (word("idempotency_key"), task["attempt"].as_u64().unwrap_or_default());
    let fate = Dice::new(seed, &key, attempt).between(0, 100);
    let (name, mut body) = match fate {
        0..80 => ("complete-step", json!({ "output": { "by": number, "attempt": attempt } })),
        80..92 => ("fail-step", json!({ "error": { "type": "mistake", "message": "A mistake." } })),
        // It dies with the task in hand: the deadline notices.
        _ => return,
    };
    body["step"] = task["step"].clone();
    body["attempt"] = attempt.into();
    let report = Command::new(format!("{key}/{attempt}/{name}"), "run", word("run"), name, body);
    callers.ask(number, &report).await;
}
