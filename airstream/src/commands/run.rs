//! `airstream workflows runs`: list, show, watch, cancel.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::command_id;
use super::{Context, Page, print_answer, print_page};
use crate::client::{Client, Query, segment};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{cell, field, rows, short};

/// How often a watched run is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// How long a watcher puts up with a server that does not answer: long enough for a restart.
const PUTS_UP: Duration = Duration::from_secs(30);

/// What can be done with runs.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List runs, the newest first
    #[command(
        after_long_help = "Example:\n  airstream workflows runs ls --workflow wf_12345 --status running",
        alias = "list"
    )]
    Ls {
        /// Only of this workflow
        #[arg(long, value_name = "ID")]
        workflow: Option<String>,
        /// Only in this status: running, completed, failed, cancelled
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a run and its steps
    #[command(after_long_help = "Example:\n  airstream workflows runs show run_1 --json")]
    Show {
        /// The run's id
        run: String,
        /// Wait until everything up to this position can be seen
        #[arg(long, value_name = "POSITION")]
        at_least: Option<String>,
    },
    /// Watch a run until it ends; exit code 1 when it fails or is cancelled
    #[command(after_long_help = "Redraws on a terminal; elsewhere a line per change.\n\nExample:\n  \
        airstream workflows runs watch run_1 --json")]
    Watch {
        /// The run's id
        run: String,
    },
    /// Cancel a run
    #[command(after_long_help = "Example:\n  airstream workflows runs cancel run_1 --reason mistake")]
    Cancel {
        /// The run's id
        run: String,
        /// Why; it is kept
        #[arg(long)]
        reason: Option<String>,
        /// Makes a repetition harmless [default: a new one]
        #[arg(long, value_name = "ID")]
        command_id: Option<String>,
    },
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    let client = context.client()?;
    match verb {
        Verb::Ls { workflow, status, page } => {
            let mut query = page.query();
            query.extend(workflow.clone().map(|workflow| ("workflow", workflow)));
            query.extend(status.clone().map(|status| ("status", status)));
            let found = client.get("/v1/workflows/runs", &query).await?;
            let fields = ["run_id", "workflow_id", "status", "current_step", "started_at", "finished_at"];
            print_page(console, &found, &fields, "no runs yet")
        }
        Verb::Show { run, at_least } => {
            let query = at_least.clone().map(|position| ("at_least", position)).into_iter().collect();
            let found = client.get(&path(run), &query).await?;
            if console.is_json() {
                return console.json(&found);
            }
            lines(&found).iter().try_for_each(|line| console.line(line))?;
            let steps = found.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            console.line("")?;
            console.table_without(
                &["finished", "started"],
                &["step", "name", "kind", "status", "attempt", "started", "finished", "output"],
                rows(steps, &["step_id", "name", "kind", "status", "attempt", "started_at", "finished_at", "output"]),
            )
        }
        Verb::Watch { run } => watch(context, &client, run).await,
        Verb::Cancel { run, reason, command_id: command } => {
            let id = command_id(command.as_deref())?;
            let body = match reason {
                Some(reason) => json!({ "reason": reason }),
                None => json!({}),
            };
            let answer = client.command(reqwest::Method::POST, &format!("{}/cancel", path(run)), &body, &id).await?;
            print_answer(console, &answer)
        }
    }
}

fn path(run: &str) -> String {
    format!("/v1/workflows/runs/{}", segment(run))
}

/// A run for people, without its table of steps.
fn lines(run: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let workflow = format!("{} version {}", field(run, "workflow_id"), field(run, "definition_version"));
    let pairs = [
        ("run", field(run, "run_id")),
        ("workflow", workflow),
        ("status", field(run, "status")),
        ("step", field(run, "current_step")),
        ("started", field(run, "started_at")),
        ("by", field(run, "started_by")),
        ("finished", field(run, "finished_at")),
        ("input", document(run, "input")),
        ("output", document(run, "output")),
        ("error", document(run, "error")),
    ];
    for (name, value) in pairs {
        if !value.is_empty() {
            lines.push(format!("{name:9} {value}"));
        }
    }
    lines
}

fn document(run: &Value, name: &str) -> String {
    run.get(name).filter(|value| !value.is_null()).map(|value| short(&value.to_string(), 200)).unwrap_or_default()
}

/// A step in a line, for a terminal that is redrawn.
fn step_line(step: &Value) -> String {
    let status = field(step, "status");
    let mark = match status.as_str() {
        "completed" => "✓",
        "failed" => "✗",
        "running" => "▶",
        _ => "·",
    };
    let attempt = field(step, "attempt");
    let again =
        if matches!(attempt.as_str(), "" | "0" | "1") { String::new() } else { format!(" (attempt {attempt})") };
    let error =
        step.get("error").filter(|error| !error.is_null()).map(|error| format!("  {}", short(&cell(Some(error)), 40)));
    let line = format!(
        "  {mark} {:3} {:24} {status}{again}{}",
        field(step, "step_id"),
        field(step, "name"),
        error.unwrap_or_default()
    );
    short(&line, 79)
}

fn ended(run: &Value) -> bool {
    matches!(run.get("status").and_then(Value::as_str), Some("completed" | "failed" | "cancelled"))
}

/// What a run that has ended means for a script.
fn verdict(run: &Value) -> Outcome {
    match run.get("status").and_then(Value::as_str) {
        Some("completed") => Ok(()),
        status => {
            let mut failure = Failure::new(
                Exit::Failed,
                format!(
                    "the run has {}",
                    match status {
                        Some("cancelled") => "been cancelled",
                        _ => "failed",
                    }
                ),
            );
            let error = document(run, "error");
            if !error.is_empty() {
                failure = failure.details(vec![error]);
            }
            Err(failure)
        }
    }
}

/// Looks again and again; a server that restarts is waited for.
struct Watched<'a> {
    client: &'a Client,
    path: String,
    query: Query,
    answered: Instant,
}

impl<'a> Watched<'a> {
    fn new(client: &'a Client, run: &str, at_least: Option<&str>) -> Watched<'a> {
        let query = at_least.filter(|position| !position.is_empty()).map(|position| ("at_least", position.to_owned()));
        Watched { client, path: path(run), query: query.into_iter().collect(), answered: Instant::now() }
    }

    /// `None`: not now.
    async fn look(&mut self) -> Outcome<Option<Value>> {
        match self.client.get(&self.path, &self.query).await {
            Ok(run) => {
                self.answered = Instant::now();
                self.query.clear();
                Ok(Some(run))
            }
            Err(failure)
                if matches!(failure.exit, Exit::Unavailable | Exit::Timeout) && self.answered.elapsed() < PUTS_UP =>
            {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Waits for the end of a run that has just been started, and prints it.
pub(crate) async fn wait(
    context: &Context<'_>,
    client: &Client,
    run: &str,
    position: &str,
    patience: Option<Duration>,
) -> Outcome {
    let console = context.console;
    let spinner = console.spinner();
    let mut watched = Watched::new(client, run, Some(position));
    let end = async {
        loop {
            if let Some(found) = watched.look().await? {
                if ended(&found) {
                    return Ok::<Value, Failure>(found);
                }
                spinner.set_message(format!("{run}: {} {}", field(&found, "status"), field(&found, "current_step")));
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    let found = match patience {
        None => Ok(end.await),
        Some(patience) => tokio::time::timeout(patience, end).await,
    };
    spinner.finish_and_clear();
    let found = found.map_err(|_| {
        let seconds = patience.unwrap_or_default().as_secs();
        Failure::new(Exit::Timeout, format!("{run} has not ended within {seconds} s; it goes on"))
            .hint(format!("`airstream workflows runs watch {run}` waits on"))
    })??;
    if console.is_json() {
        console.json(&found)?;
    } else {
        lines(&found).iter().try_for_each(|line| console.line(line))?;
    }
    verdict(&found)
}

async fn watch(context: &Context<'_>, client: &Client, run: &str) -> Outcome {
    let console = context.console;
    let redraw = console.is_terminal() && !console.is_json();
    let mut watched = Watched::new(client, run, None);
    // Somebody who names a run that is not there should not wait for it.
    watched.answered = Instant::now().checked_sub(PUTS_UP).unwrap_or(watched.answered);
    let mut last = Value::Null;
    let mut drawn = 0;
    loop {
        if let Some(found) = watched.look().await?
            && found != last
        {
            if redraw {
                drawn = draw(context, &found, drawn)?;
            } else {
                changes(context, &last, &found)?;
            }
            let end = ended(&found);
            last = found;
            if end {
                return verdict(&last);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Draws over what was drawn before; returns how many lines there are now.
fn draw(context: &Context<'_>, run: &Value, drawn: usize) -> Outcome<usize> {
    // A line that the terminal breaks would be two to go up.
    let width = context.console.width().unwrap_or(80).saturating_sub(1);
    let mut all = lines(run);
    let steps = run.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.extend(steps.iter().map(step_line));
    let up = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A\x1b[J") };
    let line = |line: &String| format!("{}\n", short(&line.replace(char::is_control, " "), width));
    let text: String = all.iter().map(line).collect();
    context.console.raw(&format!("{up}{text}"))?;
    Ok(all.len())
}

/// A line for the run and for each step whose status is another one.
fn changes(context: &Context<'_>, before: &Value, now: &Value) -> Outcome {
    let steps = |run: &Value| run.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = steps(before);
    for step in steps(now) {
        let id = step.get("step_id");
        let earlier = known.iter().find(|known| known.get("step_id") == id);
        let same = |name: &str| earlier.is_some_and(|earlier| earlier.get(name) == step.get(name));
        if same("status") && same("attempt") {
            continue;
        }
        if context.console.is_json() {
            context.console.ndjson(&json!({"run_id": now.get("run_id"), "step": step}))?;
        } else {
            context.console.line(step_line(&step).trim_start())?;
        }
    }
    if before.get("status") != now.get("status") {
        if context.console.is_json() {
            let mut run = now.clone();
            if let Some(fields) = run.as_object_mut() {
                fields.remove("steps");
            }
            context.console.ndjson(&json!({"run_id": now.get("run_id"), "run": run}))?;
        } else {
            context.console.line(&format!("{} {}", field(now, "run_id"), field(now, "status")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_well_or_says_why_not() {
        assert!(!ended(&json!({"status": "running"})));
        assert!(verdict(&json!({"status": "completed"})).is_ok());
        let failed = verdict(&json!({"status": "failed", "error": {"code": "x"}})).unwrap_err();
        assert_eq!((failed.exit, failed.details), (Exit::Failed, vec![r#"{"code":"x"}"#.to_owned()]));
    }

    #[test]
    fn a_step_is_a_line_of_a_terminal() {
        let step = json!({"step_id": "1", "name": "validate_input", "status": "retrying", "attempt": 2, "error": {"detail": "x".repeat(90)}});
        let line = step_line(&step);
        assert!(line.starts_with("  · 1   validate_input           retrying (attempt 2)  {"), "{line}");
        assert!(line.chars().count() <= 79);
    }
}
