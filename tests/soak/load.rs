//! Commands by the clock, runs with a task and a timer, workers that do the tasks, and a probe that follows the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{Client, HeaderMap};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stack::{Http, Stack};

/// Definitions per second, over `WORKFLOWS` streams.
const DEFINITIONS: u32 = 200;
const WORKFLOWS: u64 = 500;
/// Runs per second. Each is a start, a claim, a report and a timer: four more commands.
const RUNS: u32 = 25;
const WORKERS: usize = 16;
/// How long the last runs may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has been measured since somebody looked.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) answers_ms: Mutex<Vec<f64>>,
    /// From when the log stored a probe until it was delivered.
    pub(crate) deliveries_ms: Mutex<Vec<f64>>,
    pub(crate) errors: Mutex<Vec<String>>,
    pub(crate) commands: AtomicU64,
    pub(crate) runs: AtomicU64,
}

impl Counted {
    fn error(&self, what: String) {
        let mut errors = self.errors.lock().unwrap();
        // The first ones tell what is wrong.
        if errors.len() < 100 {
            errors.push(what);
        }
    }
}

pub(crate) struct Load {
    pub(crate) counted: Arc<Counted>,
    callers: CancellationToken,
    workers: CancellationToken,
    calling: JoinSet<()>,
    working: JoinSet<()>,
    http: Http,
}

/// What was still there after the load had ended.
pub(crate) struct Left {
    pub(crate) unfinished_runs: u64,
    pub(crate) parked: u64,
    pub(crate) lag: u64,
}

impl Load {
    pub(crate) async fn begin(stack: &Stack) -> Self {
        let http = stack.http();
        let steps = json!([
            { "id": "work", "name": "soak", "timeout": 60 },
            { "id": "nap", "wait": 0.5 },
            { "id": "end", "kind": "pass", "output": "done" },
        ]);
        http.define("soak", steps).await;
        let counted = Arc::new(Counted::default());
        let (callers, workers) = (CancellationToken::new(), CancellationToken::new());
        let (mut calling, mut working) = (JoinSet::new(), JoinSet::new());
        let nats = stack.nats().await;
        let define = move |number: u64| {
            let steps = json!([{ "id": "end", "kind": "pass", "output": number }]);
            (format!("cmd.dev.dev.workflow.wf_{}.define", number % WORKFLOWS), json!({ "steps": steps }))
        };
        let start = move |number: u64| {
            (format!("cmd.dev.dev.run.soak_{number}.start"), json!({ "workflow": "soak", "input": { "n": number } }))
        };
        calling.spawn(call(nats.clone(), DEFINITIONS, define, Arc::clone(&counted), callers.clone()));
        let (started, counting) = (stack.nats().await, Arc::clone(&counted));
        let counted_start = move |number: u64| {
            counting.runs.fetch_add(1, Ordering::Relaxed);
            start(number)
        };
        calling.spawn(call(started, RUNS, counted_start, Arc::clone(&counted), callers.clone()));
        calling.spawn(probe(stack.nats().await, stack.log().await, Arc::clone(&counted), callers.clone()));
        for _ in 0..WORKERS {
            working.spawn(work(nats.clone(), Arc::clone(&counted), workers.clone()));
        }
        Self { counted, callers, workers, calling, working, http }
    }

    /// No new commands; what was begun is finished.
    pub(crate) async fn end(mut self) -> Left {
        self.callers.cancel();
        while self.calling.join_next().await.is_some() {}
        let until = Instant::now() + PATIENCE;
        let left = loop {
            let left = left(&self.http).await;
            if (left.unfinished_runs == 0 && left.lag == 0) || Instant::now() > until {
                break left;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        self.workers.cancel();
        while self.working.join_next().await.is_some() {}
        left
    }
}

async fn left(http: &Http) -> Left {
    let running = http.get("/v1/workflows/runs?status=running&limit=200").await;
    let consumers = http.get("/v1/projections").await;
    let sum =
        |key: &str| consumers["items"].as_array().unwrap().iter().filter_map(|item| item[key].as_u64()).sum::<u64>();
    Left {
        unfinished_runs: running["items"].as_array().unwrap().len() as u64,
        parked: sum("parked") + sum("effects_parked"),
        lag: sum("lag_events"),
    }
}

/// Commands that are due by the clock, each timed from when it was due.
async fn call(
    nats: Client,
    per_second: u32,
    command: impl Fn(u64) -> (String, Value) + Send + 'static,
    counted: Arc<Counted>,
    stop: CancellationToken,
) {
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for number in 0.. {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(per_second));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let (nats, counted, (subject, body)) = (nats.clone(), Arc::clone(&counted), command(number));
        calls.spawn(async move {
            if ask(&nats, &counted, &subject, &body).await.is_some() {
                counted.answers_ms.lock().unwrap().push(due.elapsed().as_secs_f64() * 1_000.0);
            }
        });
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

/// Asks as a client does that means it: what may be asked again is, with the same id.
async fn ask(nats: &Client, counted: &Counted, subject: &str, body: &Value) -> Option<Value> {
    let mut map = HeaderMap::new();
    map.insert("Airstream-Command-Id", uuid::Uuid::now_v7().simple().to_string());
    counted.commands.fetch_add(1, Ordering::Relaxed);
    match nats.request_with_headers(subject.to_owned(), map, body.to_string().into()).await {
        Err(error) => counted.error(format!("{subject}: {error}")),
        Ok(reply) => {
            let reply: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
            if reply["accepted"] == true {
                return Some(reply);
            }
            counted.error(format!("{subject}: {reply}"));
        }
    }
    None
}

/// A worker as in `examples/`.
async fn work(nats: Client, counted: Arc<Counted>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let reply = match nats.request("work.dev.dev.soak", r#"{"wait_ms":1000}"#.into()).await {
            Ok(reply) => reply,
            Err(error) => {
                counted.error(format!("a worker asks for work: {error}"));
                continue;
            }
        };
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
        let task = &reply["task"];
        if let Some(run) = task["run"].as_str() {
            let body = json!({ "step": task["step"], "attempt": task["attempt"], "output": { "ok": true } });
            ask(&nats, &counted, &format!("cmd.dev.dev.run.{run}.complete-step"), &body).await;
        } else if !task.is_null() || reply.get("task").is_none() {
            counted.error(format!("a worker asks for work: {reply}"));
        }
    }
}

/// Two messages a second on a stream of its own, and a reader that follows it: how long the log takes to hand out a single
/// message, from when it was stored, must not grow with the hours.
async fn probe(nats: Client, log: Context, counted: Arc<Counted>, stop: CancellationToken) {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        filter_subject: "ev.*.dev.workflow.probe".to_owned(),
        inactive_threshold: Duration::from_secs(300),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = log.create_consumer_on_stream(config, "EVENTS").await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        ticks.tick().await;
        number += 1;
        let body = json!({ "steps": [{ "id": "end", "kind": "pass", "output": number }] });
        let read = async {
            let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
            (message, runtime::clock::now())
        };
        let (asked, (message, at)) =
            tokio::join!(ask(&nats, &counted, "cmd.dev.dev.workflow.probe.define", &body), read);
        match message {
            Ok(Some(Ok(message))) => {
                let took = at - message.info().unwrap().published;
                let ms = took.num_microseconds().unwrap_or(i64::MAX) as f64 / 1_000.0;
                counted.deliveries_ms.lock().unwrap().push(ms);
            }
            other => counted.error(format!("the probe was not delivered ({asked:?}): {other:?}")),
        }
    }
}
