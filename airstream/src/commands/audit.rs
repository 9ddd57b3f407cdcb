//! `airstream audit`: who did what in the tenant.

use serde_json::Value;

use super::{Context, Page, print_page_without};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::field;

/// What can be done with the audit trail.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List what was done, the newest first
    #[command(
        after_long_help = "Examples:\n  airstream audit ls\n  airstream audit ls --actor usr_1 --action tenant.role_changed",
        alias = "list"
    )]
    Ls {
        /// Only what this one did
        #[arg(long, value_name = "ID")]
        actor: Option<String>,
        /// Only this, such as tenant.role_changed
        #[arg(long, value_name = "TYPE")]
        action: Option<String>,
        /// Only from then on, such as 2026-11-20T00:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only before then
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Recompute the chain of hashes, compare it with the log, and say where it breaks; exit code 6 when it does
    #[command(after_long_help = "Example:\n  airstream audit verify")]
    Verify,
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    match verb {
        Verb::Ls { actor, action, since, until, page } => {
            let mut query = page.query();
            query.extend(actor.clone().map(|actor| ("actor", actor)));
            query.extend(action.clone().map(|action| ("action", action)));
            query.extend(since.clone().map(|since| ("since", since)));
            query.extend(until.clone().map(|until| ("until", until)));
            let found = client.get("/v1/audit", &query).await?;
            let fields = ["time", "what", "action", "actor", "position"];
            // The sentence tells the rest.
            print_page_without(&["position", "actor", "action"], console, &found, &fields, "nothing yet")
        }
        Verb::Verify => {
            let found = client.get("/v1/audit/verify", &Vec::new()).await?;
            if console.is_json() {
                console.json(&found)?;
            } else {
                console.pairs(&["entries", "position", "head"].map(|name| (name, field(&found, name))))?;
            }
            let findings = found.get("findings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if found.get("intact").and_then(Value::as_bool) == Some(true) {
                return Ok(());
            }
            let line = |finding: &Value| {
                let wrong = match field(finding, "wrong").as_str() {
                    "broken" => "its hash does not follow from the row and the hash before it",
                    "changed" => "it does not say what the log says",
                    "missing" => "the log leads to it, and it is not there",
                    _ => "the log does not lead to it",
                };
                format!("{}.{}: {wrong}", field(finding, "position"), field(finding, "number"))
            };
            let failure = Failure::new(Exit::Findings, "the audit is not what the log says".to_owned());
            Err(failure
                .details(findings.iter().map(line).collect())
                .hint("somebody has changed rows by hand; `airstream projections rebuild audit` writes them anew"))
        }
    }
}
