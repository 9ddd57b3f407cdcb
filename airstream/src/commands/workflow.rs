//! `airstream workflows`: definitions, and the start of a run. Runs themselves are in `run.rs`.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::command::command_id;
use super::{Context, Page, print_answer, print_page, run as runs};
use crate::client::segment;
use crate::failure::{Exit, Failure, Outcome};
use crate::input;
use crate::output::field;

/// What can be done with workflows.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Publish a definition; a changed one becomes the next version
    #[command(after_long_help = "Examples:\n  \
        airstream workflows define definition.json\n  \
        airstream workflows define - --id wf_12345 < definition.json")]
    Define {
        /// The document, - for stdin
        file: String,
        /// The workflow's id [default: the document's workflow_id]
        #[arg(long)]
        id: Option<String>,
        /// Makes a repetition harmless [default: a new one]
        #[arg(long, value_name = "ID")]
        command_id: Option<String>,
    },
    /// List the workflows
    #[command(after_long_help = "Example:\n  airstream workflows ls", alias = "list")]
    Ls(Page),
    /// Show a definition
    #[command(after_long_help = "Example:\n  airstream workflows show wf_12345 --version 1")]
    Show {
        /// The workflow's id
        id: String,
        /// Which version [default: the newest]
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Start a run
    #[command(after_long_help = "Examples:\n  \
        airstream workflows start wf_12345 -d @input.json --wait --timeout 60\n  \
        airstream workflows start wf_12345 --run run_1 --command-id my-id-1")]
    Start(Start),
    /// Look at runs, watch and cancel them
    #[command(subcommand, alias = "run")]
    Runs(runs::Verb),
}

/// The flags of `workflows start`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Start {
    /// The workflow's id
    id: String,
    /// The input: JSON, @file, or - for stdin
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// The run's id [default: a new one]
    #[arg(long, value_name = "RUN_ID")]
    run: Option<String>,
    /// Which version of the workflow [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Makes a repetition harmless [default: a new one]
    #[arg(long, value_name = "ID")]
    command_id: Option<String>,
    /// Wait for the end of the run; exit code 1 when it fails or is cancelled
    #[arg(long)]
    wait: bool,
    /// With --wait: at most so many seconds, then exit code 7
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

#[derive(Serialize)]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    match verb {
        Verb::Define { file, id, command_id: command } => {
            let document = input::document(file)?;
            let id = match id {
                Some(id) => id.clone(),
                None => workflow_id(&document)?,
            };
            let command = command_id(command.as_deref())?;
            let path = format!("/v1/workflows/{}", segment(&id));
            let answer = context.client()?.command(Method::PUT, &path, &document, &command).await?;
            print_answer(console, &answer)
        }
        Verb::Ls(page) => {
            let found = context.client()?.get("/v1/workflows", &page.query()).await?;
            print_page(console, &found, &["workflow_id", "version", "name", "status", "changed_at"], "no workflows yet")
        }
        Verb::Show { id, version } => {
            let query = version.map(|version| ("version", version.to_string())).into_iter().collect();
            let found = context.client()?.get(&format!("/v1/workflows/{}", segment(id)), &query).await?;
            if console.is_json() {
                return console.json(&found);
            }
            console.pairs(&[
                ("workflow", field(&found, "workflow_id")),
                ("version", field(&found, "version")),
                ("name", field(&found, "name")),
                ("status", field(&found, "status")),
                ("changed", field(&found, "changed_at")),
                ("hash", field(&found, "hash")),
            ])?;
            let text = serde_json::to_string_pretty(found.get("document").unwrap_or(&Value::Null));
            console.line(&text.map_err(|error| Failure::because(Exit::Failed, &error))?)
        }
        Verb::Start(start) => begin(context, start).await,
        Verb::Runs(verb) => runs::run(context, verb).await,
    }
}

/// Where the document says which workflow it is.
fn workflow_id(document: &RawValue) -> Outcome<String> {
    let document: Value =
        serde_json::from_str(document.get()).map_err(|error| Failure::because(Exit::Usage, &error))?;
    match document.get("workflow_id").and_then(Value::as_str) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::usage("the document has no text at /workflow_id").hint("name the workflow with --id")),
    }
}

async fn begin(context: &Context<'_>, start: &Start) -> Outcome {
    let client = context.client()?;
    let body = Body {
        input: start.data.as_deref().map(input::json).transpose()?,
        run_id: start.run.clone(),
        version: start.version,
    };
    let command = command_id(start.command_id.as_deref())?;
    let path = format!("/v1/workflows/{}/runs", segment(&start.id));
    let answer = client.command(Method::POST, &path, &body, &command).await?;
    if !start.wait {
        return print_answer(context.console, &answer);
    }
    let run = field(&answer, "run_id");
    context.console.say(&format!("started {run}"));
    let deadline = start.timeout.map(Duration::from_secs);
    runs::wait(context, &client, &run, &field(&answer, "position"), deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_which_workflow_it_is() {
        let id = |text: &str| workflow_id(&input::json(text).unwrap());
        assert_eq!(id(r#"{"workflow_id":"wf_12345","steps":[]}"#).unwrap(), "wf_12345");
        for without in ["{}", "[]", r#"{"workflow_id":5}"#] {
            assert_eq!(id(without).unwrap_err().exit, Exit::Usage);
        }
    }
}
