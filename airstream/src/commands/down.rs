//! `airstream down`: asks the local stack to stop, and waits until it is gone.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::json;

use super::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::state_file::{Running, holder, nothing_runs};

/// Longer than the platform and the servers may take together.
const PATIENCE: Duration = Duration::from_secs(30);

/// The flags of `down`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Example:\n  airstream down --data-dir /tmp/stack")]
pub(crate) struct Arguments {}

pub(crate) async fn run(context: &Context<'_>, _arguments: &Arguments) -> Outcome {
    let console = context.console;
    let data_dir = context.data_dir()?;
    // A stack that is still starting has written no addresses, but holds the lock.
    let process = Running::alive(&data_dir)?.map(|running| running.process).or_else(|| {
        holder(&data_dir)
            .filter(|holder| holder.exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("airstream")))
    });
    let Some(process) = process else {
        console.say(&nothing_runs(&data_dir));
        return if console.is_json() { console.json(&json!({"stopped": false, "pid": null})) } else { Ok(()) };
    };
    match process.signal(Signal::SIGTERM) {
        // It was faster.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => {
            let message = format!("could not stop process {}: {}", process.pid, error.desc());
            return Err(Failure::new(Exit::Auth, message).hint("a stack can be stopped by the user who started it"));
        }
    }
    let spinner = console.spinner();
    spinner.set_message(format!("stopping process {}", process.pid));
    let gone = process.wait_until_gone(PATIENCE).await;
    spinner.finish_and_clear();
    if !gone {
        let message = format!("process {} is still there after {} s", process.pid, PATIENCE.as_secs());
        return Err(Failure::new(Exit::Timeout, message)
            .hint(format!("look into `airstream logs`; `kill -9 {}` ends it, and its servers with it", process.pid)));
    }
    console.say(&format!("stopped process {} in {}", process.pid, data_dir.display()));
    if console.is_json() { console.json(&json!({"stopped": true, "pid": process.pid})) } else { Ok(()) }
}
