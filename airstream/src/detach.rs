//! `up --detach`: the same program once more, in a session of its own, with a log for a terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::commands::{Context, status};
use crate::failure::{Exit, Failure, Outcome};
use crate::paths;
use crate::state_file::Running;
use crate::up::{Arguments, Banner};

/// How long the caller waits. The start goes on if it takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many of its last lines are shown when a start fails.
const LINES: usize = 20;

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let config = arguments.config(context)?;
    let console = context.console;
    let banner = Banner::new(console.clone());
    // Only the process in the background has steps to tell.
    banner.done();
    let data_dir = paths::data_dir(&config)?;
    if !arguments.ephemeral()
        && let Some(running) = Running::alive(&data_dir)?
    {
        console.say(&format!("a stack is running in {} already (process {})", data_dir.display(), running.pid));
        return told(context, &banner, &running);
    }
    arguments.check_port(&config)?;
    let (log_path, log) = log(arguments, &data_dir)?;
    let log_from = log.metadata().map(|found| found.len()).unwrap_or(0);
    // Gone when we return; by then the addresses are read, or nobody waits for them.
    let meeting = tempfile::tempdir().map_err(|error| failed("make a temporary folder", &error))?;
    let ready_file = meeting.path().join("ready.json");
    let mut child = spawn(&ready_file, log)?;
    if !arguments.waits() {
        console.say(&format!("starting as process {}; its log is {}", child.id(), log_path.display()));
        if console.is_json() {
            console.json(&serde_json::json!({"pid": child.id(), "log": log_path}))?;
        }
        return Ok(());
    }
    let spinner = console.spinner();
    spinner.set_message("starting");
    let outcome = wait(&mut child, &ready_file).await;
    spinner.finish_and_clear();
    match outcome {
        Ok(running) => told(context, &banner, &running),
        Err(failure) => Err(failure
            .details(last_lines(&log_path, log_from))
            .hint(format!("the whole log is {}", log_path.display()))),
    }
}

fn told(context: &Context<'_>, banner: &Banner, running: &Running) -> Outcome {
    if context.console.is_json() {
        return context.console.json(&status::document(running, Some(true)));
    }
    banner.addresses(running, None);
    Ok(())
}

/// Our log in the data directory; an ephemeral stack has none yet.
fn log(arguments: &Arguments, data_dir: &Path) -> Outcome<(PathBuf, File)> {
    if arguments.ephemeral() {
        let kept = tempfile::Builder::new().prefix("airstream-up-").suffix(".log").tempfile();
        let kept = kept.and_then(|file| file.keep().map_err(|error| error.error));
        let (file, path) = kept.map_err(|error| failed("make a log in the temporary folder", &error))?;
        return Ok((path, file));
    }
    paths::make_log_dir(data_dir)?;
    let path = paths::own_log(data_dir);
    let file = paths::open_log(&path).map_err(|error| failed(&format!("open {}", path.display()), &error))?;
    Ok((path, file))
}

fn spawn(ready_file: &Path, log: File) -> Outcome<Child> {
    let exe = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
    let ours = ["--detach", "--wait", "--no-wait"];
    let arguments: Vec<OsString> =
        std::env::args_os().skip(1).filter(|word| !ours.iter().any(|our| word == our)).collect();
    let again = log.try_clone().map_err(|error| failed("share the log", &error))?;
    Command::new(exe)
        .args(arguments)
        .arg("--detached")
        .arg(ready_file)
        .stdin(Stdio::null())
        .stdout(again)
        .stderr(log)
        .spawn()
        .map_err(|error| failed("start this program again", &error))
}

async fn wait(child: &mut Child, ready_file: &Path) -> Outcome<Running> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(running) = std::fs::read(ready_file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(running);
        }
        if let Ok(Some(status)) = child.try_wait() {
            // It has found out what kind of no it is.
            let exit = status.code().map_or(Exit::Failed, Exit::of_code);
            return Err(Failure::new(exit, format!("the stack did not start ({status})")));
        }
        if Instant::now() > deadline {
            let message =
                format!("the stack is not ready after {} s; process {} goes on trying", PATIENCE.as_secs(), child.id());
            return Err(Failure::new(Exit::Timeout, message));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn last_lines(path: &Path, from: u64) -> Vec<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(256 * 1024).read_to_string(&mut text)
    });
    if read.is_err() {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect()
}

fn failed(doing: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("could not {doing}: {error}"))
}
