//! The examples, run as a newcomer would: Python from the machine, its packages from its package index.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use stories::guests::{Killed, python};

use crate::stack::{Said, Stack};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize().unwrap()
}

fn script(stack: &Stack, name: &str) -> Command {
    let status = stack.folder().join("status.json");
    std::fs::write(&status, stack.status().to_string()).unwrap();
    let packages = std::fs::read_to_string(examples().join("requirements.txt")).unwrap();
    let mut command = Command::new(python(&packages.lines().collect::<Vec<_>>()));
    command.arg(examples().join(name)).env("AIRSTREAM_STATUS", status).stdin(Stdio::null());
    command
}

/// One story, because the environment is made once: publish, work, read the log with a CloudEvents library.
#[tokio::test(flavor = "multi_thread")]
async fn python_publishes_works_and_reads_what_we_store() {
    let stack = Stack::up(&[]);
    let said: Said = script(&stack, "publish_command.py").args(["--run", "py1"]).output().unwrap().into();
    assert!(said.code == 0 && said.out.contains("gives the same answer"), "{}{}", said.out, said.err);
    let again: Said = script(&stack, "publish_command.py").args(["--run", "py1"]).output().unwrap().into();
    let start = |said: &Said| said.out.lines().find(|line| line.starts_with("start:")).unwrap().to_owned();
    assert_eq!(start(&again), start(&said), "asked again later, another answer");
    let queued: Said = script(&stack, "publish_command.py").args(["--run", "py2", "--queue"]).output().unwrap().into();
    assert!(queued.code == 0 && queued.out.contains("queued: COMMANDS"), "{}{}", queued.out, queued.err);

    let mut worker = Killed(script(&stack, "worker.py").stdout(Stdio::null()).spawn().unwrap());
    for run in ["py1", "py2"] {
        let run = stack.http().run_in(run, &["completed", "failed"]).await;
        assert_eq!(run["status"], "completed", "{run:#}");
        assert_eq!(run["output"], json!({ "to": "ops@example.com", "text": "Usage came to 4.71 USD." }));
    }
    // It ends when asked politely.
    assert!(Command::new("kill").args(["-INT", &worker.0.id().to_string()]).status().unwrap().success());
    assert!(worker.0.wait().unwrap().success());

    let read: Said = script(&stack, "read_log.py").output().unwrap().into();
    assert!(read.code == 0 && read.out.contains("run.completed"), "{}{}", read.out, read.err);
}
