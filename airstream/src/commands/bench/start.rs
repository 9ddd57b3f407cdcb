//! How long it takes from typing `airstream up` to a stack that answers.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Common;
use super::place::folder_on_the_measured_disk;
use super::report::{Measured, Reach};
use super::rounds::{self, Samples};
use crate::commands::Context;
use crate::failure::Outcome;

pub(super) async fn measure(context: &Context<'_>, common: &Common) -> Outcome<Vec<Measured>> {
    let config = context.config(&[])?.config;
    let (mut cold, mut warm) = (Samples::default(), Samples::default());
    let bar = rounds::bar(context.console, "start", common.rounds * 2);
    for _ in 0..common.rounds {
        let folder = folder_on_the_measured_disk(&config)?;
        for samples in [&mut cold, &mut warm] {
            let path = folder.path().to_owned();
            let took = tokio::task::spawn_blocking(move || up(&path)).await.context("the start panicked")??;
            samples.push(took.as_secs_f64());
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let figure = |name: &str, samples: &Samples, seconds: f64| {
        let detail = serde_json::json!({ "rounds": samples.len(), "ours_spread": samples.spread() });
        Measured::alone(name, "s", samples.median(), Reach::AtMost(seconds)).with(detail)
    };
    Ok(vec![figure("start, nothing there", &cold, 3.0), figure("start, with data", &warm, 1.0)])
}

/// Starts a stack in a folder, as a person would, until it tells where it is; then stops it.
fn up(folder: &Path) -> anyhow::Result<Duration> {
    let exe = std::env::current_exe().context("could not find this program")?;
    let mut command = Command::new(exe);
    command.args(["up", "--json", "--quiet", "--port", "0", "--data-dir"]).arg(folder.join("data"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What is configured for this shell is not what is measured.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AIRSTREAM") {
            command.env_remove(name);
        }
    }
    let began = Instant::now();
    let mut child = command.spawn().context("could not start `airstream up`")?;
    let mut line = String::new();
    let read = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
    let took = began.elapsed();
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
    }
    let status = child.wait()?;
    ensure!(matches!(read, Some(Ok(1..))) && status.success(), "`airstream up` did not start and stop ({status})");
    Ok(took)
}
