//! `airstream commands`: ask for a change, and look up what became of it.

use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Context, Page, items, more, print_answer, print_page, print_page_without};
use crate::client::segment;
use crate::failure::{Failure, Outcome};
use crate::input;
use crate::output::{cell, field, rows, short};

/// What can be done with commands.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Ask for a change; the answer is there when it is durable
    #[command(
        after_long_help = "The same command id again gets the same answer and changes nothing more.\n\nExamples:\n  \
        airstream commands publish workflow wf_1 define -d @definition.json\n  \
        airstream commands publish run run_1 cancel --command-id my-id-1"
    )]
    Publish(Publish),
    /// List accepted commands, or with --rejected the refused ones of the durable queue
    #[command(after_long_help = "Example:\n  airstream commands list --rejected --limit 10", alias = "ls")]
    List {
        /// Only what was published to the durable queue and refused
        #[arg(long)]
        rejected: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Show what became of a command
    #[command(after_long_help = "Example:\n  airstream commands show my-id-1")]
    Show {
        /// The command's id
        id: String,
    },
    /// List the commands there are
    #[command(after_long_help = "Example:\n  airstream commands catalogue")]
    Catalogue,
}

/// A command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Publish {
    /// The category, such as `workflow`
    category: String,
    /// The id within the category
    id: String,
    /// The command's name, such as `define`
    command: String,
    /// The body: JSON, @file, or - for stdin
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// Makes a repetition harmless [default: a new one]
    #[arg(long, value_name = "ID")]
    command_id: Option<String>,
    /// Only if the stream has exactly this version
    #[arg(long, value_name = "N")]
    expect_version: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    category: &'a str,
    id: &'a str,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<u64>,
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    match verb {
        Verb::Publish(publish) => {
            let body = Body {
                category: &publish.category,
                id: &publish.id,
                command: &publish.command,
                body: publish.data.as_deref().map(input::json).transpose()?,
                expected_version: publish.expect_version,
            };
            let id = command_id(publish.command_id.as_deref())?;
            let answer = context.client()?.command(Method::POST, "/v1/commands", &body, &id).await?;
            print_answer(console, &answer)
        }
        Verb::List { rejected, page } => {
            let mut query = page.query();
            query.push(("rejected", rejected.to_string()));
            let mut found = context.client()?.get("/v1/commands", &query).await?;
            if !*rejected {
                let fields = ["position", "decided_at", "category", "id", "command", "command_id"];
                return print_page_without(&["command id", "decided"], console, &found, &fields, "no commands yet");
            }
            if console.is_json() {
                return console.json(&found);
            }
            if found.get("items").is_none()
                && let Some(rejected) = found.get("rejected").cloned()
                && let Some(page) = found.as_object_mut()
            {
                page.insert("items".to_owned(), rejected);
            }
            print_page(
                console,
                &found,
                &["inbox_id", "taken_at", "category", "id", "command", "code", "detail"],
                "no refused commands",
            )
        }
        Verb::Show { id } => {
            let found = context.client()?.get(&format!("/v1/commands/{}", segment(id)), &Vec::new()).await?;
            if console.is_json() { console.json(&found) } else { show(context, &found) }
        }
        Verb::Catalogue => {
            let found = context.client()?.get("/v1/catalogue", &Vec::new()).await?;
            if console.is_json() {
                return console.json(&found);
            }
            let categories = found.get("categories").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let rows = categories.iter().flat_map(|category| {
                let commands =
                    category.get("commands").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                commands.iter().map(|command| {
                    let of = |name: &str| field(command, name);
                    vec![field(category, "category"), of("name"), of("access"), of("about")]
                })
            });
            console.table(&["category", "command", "access", "about"], rows.collect())
        }
    }
}

fn show(context: &Context<'_>, found: &Value) -> Outcome {
    let console = context.console;
    let of = |name: &str| found.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (commits, rejected) = (of("commits"), of("rejected"));
    console.pairs(&[("command id", field(found, "command_id"))])?;
    if !commits.is_empty() {
        console.line("\naccepted")?;
        let fields = ["position", "decided_at", "category", "id", "command", "version", "types"];
        console.table(
            &["position", "decided", "category", "id", "command", "version", "events"],
            rows(&commits, &fields),
        )?;
    }
    if !rejected.is_empty() {
        console.line("\nrefused")?;
        let fields = ["inbox_id", "taken_at", "category", "id", "command", "code", "detail"];
        console
            .table(&["inbox id", "taken", "category", "id", "command", "code", "detail"], rows(&rejected, &fields))?;
        for rejected in &rejected {
            if rejected.get("body").is_some_and(|body| !body.is_null()) {
                console.line(&format!("body  {}", short(&cell(rejected.get("body")), 200)))?;
            }
        }
    }
    if commits.is_empty() && rejected.is_empty() && items(found).is_empty() {
        console.say("nothing is known of it: a command that was refused at the door leaves no trace");
    }
    more(console, found);
    Ok(())
}

/// The given id, checked here so that a typing error costs no round trip, or a new one.
pub(crate) fn command_id(given: Option<&str>) -> Outcome<String> {
    match given {
        None => Ok(runtime::clock::fresh_id("cmd_")),
        Some(id) => match kernel::CommandId::new(id) {
            Ok(_) => Ok(id.to_owned()),
            Err(error) => Err(Failure::usage(format!("--command-id: {error}"))),
        },
    }
}
