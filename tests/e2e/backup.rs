//! The drill: work in every state there is, a backup, the loss of everything, a restore; and the work goes on as if nothing had
//! happened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use futures::StreamExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::stack::Stack;

/// A receiver that says yes and counts how often it has been asked, by key.
struct Receiver {
    url: String,
    asked: Arc<Mutex<HashMap<String, u32>>>,
}

impl Receiver {
    async fn listen() -> Self {
        const YES: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    let read = socket.read(&mut buffer).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let key = text
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("idempotency-key: ").map(str::to_owned));
                    *counted.lock().unwrap().entry(key.unwrap_or_default()).or_default() += 1;
                    let _ = socket.write_all(YES).await;
                });
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> HashMap<String, u32> {
        self.asked.lock().unwrap().clone()
    }
}

/// One message, with everything that a reader can see of it.
#[derive(Debug, Clone, PartialEq)]
struct Raw {
    sequence: u64,
    subject: String,
    headers: String,
    time: i128,
    payload: Vec<u8>,
}

/// The platform's own way in: the development user sees the log only.
async fn inside(stack: &Stack) -> async_nats::jetstream::Context {
    let (user, password) = embedded::nats_login(&stack.data_dir()).unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    let url = stack.status()["nats"]["url"].as_str().unwrap().to_owned();
    async_nats::jetstream::new(options.connect(url).await.unwrap())
}

/// Everything that a stream holds.
async fn raw(stack: &Stack, stream: &str) -> Vec<Raw> {
    let context = inside(stack).await;
    let stream = context.get_stream(stream).await.unwrap();
    let state = stream.cached_info().state.clone();
    let sequences = futures::stream::iter(state.first_sequence..=state.last_sequence);
    let read = sequences.then(async |sequence| {
        let message = stream.get_raw_message(sequence).await.ok()?;
        let mut headers: Vec<String> =
            message.headers.iter().map(|(name, values)| format!("{name}: {values:?}")).collect();
        headers.sort();
        Some(Raw {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            headers: headers.join("\n"),
            time: message.time.timestamp_nanos_opt().unwrap().into(),
            payload: message.payload.to_vec(),
        })
    });
    read.filter_map(async |message| message).collect().await
}

async fn ask(stack: &Stack, subject: &str, body: &Value, id: &str) -> Value {
    let mut headers = HeaderMap::new();
    headers.insert("Airstream-Command-Id", id);
    let reply = stack.nats().await.request_with_headers(subject.to_owned(), headers, body.to_string().into()).await;
    serde_json::from_slice(&reply.unwrap().payload).unwrap()
}

fn signal(pid: u64, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

impl Stack {
    pub(crate) fn backup(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        let said = self.run(&["backup", "create", "--to", path.to_str().unwrap(), "--json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(said.json()["path"], path.to_str().unwrap());
        path
    }

    pub(crate) fn restore(&self, backup: &Path) {
        let said = self.run(&["restore", backup.to_str().unwrap(), "--json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let done = said.json();
        assert!(done["old_log"].is_string() && done["old_log"] != done["new_log"], "{done}");
        let (kept, wanted) = (self.folder().join("master.key"), self.data_dir().join("master.key"));
        if kept.exists() {
            assert!(
                said.err.contains(&format!("put the master key of the old stack at {}", wanted.display())),
                "{}",
                said.err
            );
            std::fs::copy(kept, wanted).unwrap();
        }
    }

    /// Kills it and takes its disk away. The master key is kept elsewhere, as it has to be.
    pub(crate) fn lose(&self) {
        self.kill();
        std::fs::copy(self.data_dir().join("master.key"), self.folder().join("master.key")).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // Its servers die with it, and may still be at their last write.
        while std::fs::remove_dir_all(self.data_dir()).is_err() {
            assert!(std::time::Instant::now() < until, "its folder cannot be removed");
            std::thread::yield_now();
        }
    }

    fn parked(&self) -> Value {
        let mut parked = self.run(&["parked", "list", "--all", "--json"]).json()["items"].take();
        // Whose turn it was is of no interest.
        parked.as_array_mut().unwrap().sort_by_key(|row| row["id"].to_string());
        parked
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_everything_a_restored_stack_goes_on_as_if_nothing_had_happened() {
    let receiver = Receiver::listen().await;
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("calling", json!([{ "id": "call", "http": { "method": "POST", "url": receiver.url } }])).await;
    http.define("napping", json!([{ "id": "nap", "wait": 10 }, { "id": "end", "kind": "pass", "output": "awake" }]))
        .await;
    http.define("working", json!([{ "id": 1, "name": "one", "timeout": 600 }])).await;
    // Done: a request that was answered.
    http.start("calling", "called", json!(1)).await;
    http.run_in("called", &["completed"]).await;
    assert_eq!(receiver.asked().values().collect::<Vec<_>>(), [&1]);
    // In progress: a task nobody has taken, a timer in the future.
    let start = json!({ "workflow": "working", "input": { "n": 1 } });
    let answer = ask(&stack, "cmd.dev.dev.run.at-work.start", &start, "the-start").await;
    assert_eq!(answer["accepted"], true, "{answer}");
    http.run_in("at-work", &["running"]).await;
    // Decided by a person: a commit that nobody can read is left out.
    let mut guard = HeaderMap::new();
    guard.insert("Nats-Expected-Last-Subject-Sequence", "0");
    let name = kernel::StreamName::new("dev", "run", "poison").unwrap();
    let spoilt = format!("ev.{}.dev.run.poison", name.shard());
    inside(&stack).await.publish_with_headers(spoilt, guard, "not a commit".into()).await.unwrap().await.unwrap();
    // By everybody who reads runs: commits, runs, and the reactor.
    stories::eventually("it is parked", async || stack.parked().as_array().unwrap().len() == 3).await;
    for row in stack.parked().as_array().unwrap() {
        let said = stack.run(&["parked", "skip", row["id"].as_str().unwrap(), "--reason", "written by a drill"]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let settled = async || stack.parked().as_array().unwrap().iter().all(|row| row["state"] == "skipped");
    stories::eventually("it is skipped everywhere", settled).await;
    http.start("napping", "asleep", json!(1)).await;
    let nap = http.run_in("asleep", &["running"]).await;
    stories::eventually("the alarm is set", async || {
        let sql = "SELECT count(*) FROM airstream.effects WHERE stream_id = 'asleep' AND state = 'scheduled'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut stack.postgres().await).await.unwrap() == 1
    })
    .await;
    // Waiting: a queued command. The platform is stopped in its tracks, so that nobody takes it.
    let pid = stack.status()["pid"].as_u64().unwrap();
    signal(pid, Signal::SIGSTOP);
    let queued = json!({ "workflow": "calling", "input": "queued" });
    let queue = inside(&stack).await;
    queue.publish("queue.dev.dev.run.queued.start", queued.to_string().into()).await.unwrap().await.unwrap();

    let backup = stack.backup("backup");
    let (log, tasks, commands) =
        (raw(&stack, "EVENTS").await, raw(&stack, "TASKS").await, raw(&stack, "COMMANDS").await);
    assert_eq!((tasks.len(), commands.len()), (1, 1));
    let parked = {
        signal(pid, Signal::SIGCONT);
        stack.parked()
    };
    let verified = stack.run(&["backup", "verify", backup.to_str().unwrap(), "--json"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    let seen = &verified.json()["seen"];
    assert_eq!((&seen["queued"], &seen["tasks"], &seen["unreadable_and_known"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(seen["commits"], log.len() - 1);

    // What happens between the backup and the loss is lost; the receiver has seen it all the same.
    let after = http.run_in("queued", &["completed"]).await;
    assert_eq!(after["steps"][0]["attempt"], 1);
    assert_eq!(receiver.asked().len(), 2);
    stack.lose();
    stack.restore(&backup);
    assert_eq!(stack.run(&["restore", backup.to_str().unwrap()]).code, 5, "restored twice into one place");
    stack.start();

    let restored = raw(&stack, "EVENTS").await;
    assert_eq!(restored[..log.len()], log, "the log is not what it was");
    assert_eq!(stack.parked(), parked, "a person's decision was forgotten");
    // The same command id, the same answer; the server's own window is gone.
    assert_eq!(ask(&stack, "cmd.dev.dev.run.at-work.start", &start, "the-start").await, answer);
    // The queued command is executed now, once.
    let http = stack.http();
    http.run_in("queued", &["completed"]).await;
    stories::eventually("the queue is empty", async || raw(&stack, "COMMANDS").await.is_empty()).await;
    let started = |messages: &[Raw]| messages.iter().filter(|raw| raw.subject.ends_with(".run.queued")).count();
    let commits = raw(&stack, "EVENTS").await;
    let starts = |raw: &&Raw| {
        raw.subject.ends_with(".run.queued") && String::from_utf8_lossy(&raw.payload).contains("run.started")
    };
    assert_eq!((started(&log), commits.iter().filter(starts).count()), (0, 1));
    // The timer rings when it was to ring.
    let awake = http.run_in("asleep", &["completed", "failed"]).await;
    assert_eq!(awake["output"], "awake");
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert!(time(&awake["finished_at"]) >= time(&nap["started_at"]) + chrono::Duration::seconds(10), "{awake:#}");
    // The task is still there for a worker.
    let task = stack.nats().await.request("work.dev.dev.one", r#"{"wait_ms":5000}"#.into()).await.unwrap();
    let task: Value = serde_json::from_slice::<Value>(&task.payload).unwrap()["task"].take();
    assert_eq!((&task["run"], &task["attempt"]), (&json!("at-work"), &json!(1)), "{task}");
    let report = json!({ "step": task["step"], "attempt": 1, "output": "done" });
    assert_eq!(ask(&stack, "cmd.dev.dev.run.at-work.complete-step", &report, "the-report").await["accepted"], true);
    assert_eq!(http.run_in("at-work", &["completed"]).await["output"], "done");
    // What was done before the backup was not done again. What was done after it has been forgotten and is done again, with the
    // key that the receiver knows.
    let mut asked: Vec<u32> = receiver.asked().into_values().collect();
    asked.sort_unstable();
    assert_eq!(asked, [1, 2]);
    let said = stack.run(&["projections", "verify"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_is_one_cut() {
    const RUNS: usize = 40;
    let receiver = Receiver::listen().await;
    let stack = Stack::up(&[]);
    let http = stack.http();
    let call = json!({ "id": "call", "http": { "method": "POST", "url": receiver.url } });
    http.define("busy", json!([{ "id": "nap", "wait": 0.05 }, call, { "id": "nap2", "wait": 0.05 }])).await;
    let load = {
        let http = http.clone();
        tokio::spawn(async move {
            for n in 0..RUNS {
                http.start("busy", &format!("r{n}"), json!(n)).await;
            }
        })
    };
    http.run_in("r5", &["completed"]).await;
    let backup = stack.backup("backup");
    let log = raw(&stack, "EVENTS").await;
    load.await.unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(backup.join("manifest.json")).unwrap()).unwrap();
    let last = usize::try_from(manifest["log"]["last"].as_u64().unwrap()).unwrap();
    assert!(manifest["log"]["handled"].as_u64() <= manifest["log"]["last"].as_u64(), "{manifest:#}");
    let verified = stack.run(&["backup", "verify", backup.to_str().unwrap(), "--json"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    stack.lose();
    let before = receiver.asked();
    stack.restore(&backup);
    stack.start();
    let http = stack.http();
    // Every run that is in the log comes to its end; the others never were.
    let text = |raw: &Raw| String::from_utf8_lossy(&raw.payload).into_owned();
    let known: Vec<&Raw> = log[..last].iter().filter(|raw| text(raw).contains("\"run.started\"")).collect();
    assert!(known.len() >= 6, "the backup was made too early to say anything: {}", known.len());
    for raw in &known {
        let run = raw.subject.rsplit('.').next().unwrap();
        assert_eq!(http.run_in(run, &["completed", "failed"]).await["status"], "completed");
    }
    assert_eq!(raw(&stack, "EVENTS").await[..last], log[..last]);
    // Whatever the log knew to be done stays done.
    let asked = receiver.asked();
    let completed = |raw: &&Raw| {
        let events: Value = serde_json::from_slice(&raw.payload).unwrap();
        let called = |event: &Value| event["type"] == "run.step_completed" && event["data"]["step"] == "call";
        events.as_array().unwrap().iter().any(called)
    };
    let done = log[..last].iter().filter(completed).count();
    let unchanged = before.iter().filter(|(key, times)| asked[*key] == **times).count();
    assert!(done > 0 && unchanged >= done, "{done} requests were done before the backup, {unchanged} not made again");
    assert!(asked.values().all(|times| *times <= 2), "{asked:?}");
    assert_eq!(stack.run(&["projections", "verify"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_found_and_refused() {
    let stack = Stack::up(&[]);
    stack.http().define("wf", json!([{ "id": 1, "name": "one" }])).await;
    stack.http().start("wf", "r1", json!(1)).await;
    let backup = stack.backup("backup");
    assert_eq!(stack.run(&["backup", "verify", backup.to_str().unwrap()]).code, 0);
    let listed = || stack.run(&["backup", "ls", stack.folder().to_str().unwrap(), "--json"]).json()["items"].take();
    assert_eq!((&listed()[0]["good"], listed()[0]["verified_at"].is_string()), (&json!(true), true));
    let elsewhere = Stack::stopped();
    let refused = |what: &str| {
        let path = backup.to_str().unwrap();
        assert_eq!(stack.run(&["backup", "verify", path]).code, 6, "{what} was not found");
        let said = elsewhere.run(&["restore", path]);
        assert_eq!(said.code, 6, "{what} was not refused: {}", said.err);
        assert!(!elsewhere.data_dir().exists(), "{what}: something was made all the same");
    };
    let files = std::fs::read_dir(&backup).unwrap().map(|file| file.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| !path.ends_with("verified.json")).collect();
    assert_eq!(files.len(), 18, "{files:?}");
    for path in files {
        let whole = std::fs::read(&path).unwrap();
        if !whole.is_empty() {
            let mut flipped = whole.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            refused(&format!("one bit of {}", path.display()));
        }
        std::fs::remove_file(&path).unwrap();
        refused(&format!("the loss of {}", path.display()));
        assert!(listed().as_array().unwrap().iter().all(|item| item["good"] == false), "{:#}", listed());
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(listed()[0]["verified_at"], Value::Null, "it was found wanting after it was verified");
    let said = stack.run(&["restore", backup.to_str().unwrap()]);
    assert!(said.code == 5 && said.err.contains("already running"), "{} {}", said.code, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_leaves_nothing_that_looks_like_one() {
    use sqlx::Connection;
    let stack = Stack::up(&[]);
    let parent = stack.folder().join("backups");
    let listed = || stack.run(&["backup", "ls", parent.to_str().unwrap(), "--json"]).json();
    for (how, left) in [(Signal::SIGINT, 0), (Signal::SIGKILL, 1)] {
        // Somebody holds the last table: the copy gets so far and no further.
        let mut holder = stack.postgres().await;
        let mut held = holder.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE airstream.effects IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
        let mut create = stack.command();
        let mut create = create.args(["backup", "create", "--to"]).arg(parent.join("today")).spawn().unwrap();
        let begun = parent.join(".today.unfinished/parked.copy");
        stories::eventually("the copy has begun", async || begun.exists()).await;
        signal(create.id().into(), how);
        assert!(!create.wait().unwrap().success());
        assert_eq!(listed()["items"], json!([]));
        assert_eq!(listed()["unfinished"].as_array().unwrap().len(), left, "{how}");
        held.rollback().await.unwrap();
    }
    // The next one clears up.
    let said = stack.run(&["backup", "create", "--to", parent.join("today").to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(listed()["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed()["unfinished"], json!([]));
    let again = stack.run(&["backup", "create", "--to", parent.join("today").to_str().unwrap()]);
    assert!(again.code != 0 && again.err.contains("is there already"), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_on_an_unfinished_restore_and_asking_again_finishes_it() {
    let stack = Stack::up(&[]);
    stack.http().define("wf", json!([{ "id": 1, "name": "one" }])).await;
    let backup = stack.backup("backup");
    // As a restore that was killed leaves it.
    let mark = "CREATE TABLE airstream.unfinished_restore AS SELECT 'elsewhere'::text AS backup";
    sqlx::raw_sql(mark).execute(&mut stack.postgres().await).await.unwrap();
    assert_eq!(stack.run(&["down"]).code, 0);
    let refused = stack.run(&["up", "--detach", "--port", "0"]);
    assert!(refused.code != 0 && refused.err.contains("a restore of elsewhere"), "{} {}", refused.code, refused.err);
    stack.restore(&backup);
    stack.start();
    assert_eq!(stack.run(&["workflows", "show", "wf"]).code, 0);
    assert_eq!(stack.run(&["projections", "verify"]).code, 0);
}
