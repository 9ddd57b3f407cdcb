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
        #[command(flatten)]
        page: Page,
    },
    /// Recompute the chain of hashes, and say where it breaks; exit code 6 when it does
    #[command(after_long_help = "Example:\n  airstream audit verify")]
    Verify,
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    match verb {
        Verb::Ls { actor, action, page } => {
            let mut query = page.query();
            query.extend(actor.clone().map(|actor| ("actor", actor)));
            query.extend(action.clone().map(|action| ("action", action)));
            let found = client.get("/v1/audit", &query).await?;
            let fields = ["time", "actor", "action", "subject", "position"];
            print_page_without(&["position"], console, &found, &fields, "nothing yet")
        }
        Verb::Verify => {
            let found = client.get("/v1/audit/verify", &Vec::new()).await?;
            if console.is_json() {
                console.json(&found)?;
            } else {
                console.pairs(&["entries", "head"].map(|name| (name, field(&found, name))))?;
            }
            match found.get("intact").and_then(Value::as_bool) {
                Some(true) => Ok(()),
                _ => Err(Failure::new(Exit::Findings, format!("the chain is broken: {}", field(&found, "detail")))),
            }
        }
    }
}
