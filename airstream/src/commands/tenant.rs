//! `airstream tenants`: whom one works with.

use reqwest::Method;
use serde_json::json;

use super::command::command_id;
use super::{Context, Page, login, print_page};
use crate::client::segment;
use crate::failure::Outcome;
use crate::output::field;

/// What can be done with tenants.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the tenants that you belong to
    #[command(after_long_help = "Example:\n  airstream tenants ls", alias = "list")]
    Ls(Page),
    /// Make a tenant, and work in it from now on
    #[command(after_long_help = "Examples:\n  airstream tenants create Acme\n  airstream tenants create Acme --stay")]
    Create {
        /// What people call it
        name: String,
        /// Go on working where you are
        #[arg(long)]
        stay: bool,
        /// Makes a repetition harmless [default: a new one]
        #[arg(long, value_name = "ID")]
        command_id: Option<String>,
    },
    /// Work in another tenant from now on
    #[command(after_long_help = "Examples:\n  airstream tenants use tnt_1\n  airstream tenants use --none")]
    Use {
        /// Its id
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        tenant: Option<String>,
        /// In none
        #[arg(long)]
        none: bool,
    },
    /// Show a tenant
    #[command(after_long_help = "Example:\n  airstream tenants show tnt_1")]
    Show {
        /// Its id
        tenant: String,
    },
    /// Change what people call it
    #[command(after_long_help = "Example:\n  airstream tenants rename tnt_1 Acme")]
    Rename {
        /// Its id
        tenant: String,
        /// The new name
        name: String,
    },
    /// Leave a tenant
    #[command(after_long_help = "Example:\n  airstream tenants leave tnt_1")]
    Leave {
        /// Its id
        tenant: String,
    },
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    let path = |tenant: &str| format!("/v1/tenants/{}", segment(tenant));
    match verb {
        Verb::Ls(page) => {
            let found = context.client()?.get("/v1/tenants", &page.query()).await?;
            let none = "none yet: `airstream tenants create NAME`";
            print_page(console, &found, &["id", "name", "role", "joined_at"], none)
        }
        Verb::Create { name, stay, command_id: command } => {
            let client = context.client()?;
            let command = command_id(command.as_deref())?;
            let body = json!({ "name": name });
            let made = client.command(Method::POST, "/v1/tenants", &body, &command).await?;
            let id = field(&made, "id");
            if console.is_json() {
                console.json(&made)?;
            } else {
                console.line(&id)?;
            }
            if *stay {
                return Ok(());
            }
            login::use_tenant(context, Some(&id)).await
        }
        Verb::Use { tenant, .. } => login::use_tenant(context, tenant.as_deref()).await,
        Verb::Show { tenant } => {
            let found = context.client()?.get(&path(tenant), &Vec::new()).await?;
            match console.is_json() {
                true => console.json(&found),
                false => console.pairs(&["id", "name", "role", "created_at"].map(|name| (name, field(&found, name)))),
            }
        }
        Verb::Rename { tenant, name } => {
            let body = json!({ "name": name });
            context.client()?.send(Method::PATCH, &path(tenant), Some(&body)).await?;
            console.say(&format!("{tenant} is called {name} now"));
            Ok(())
        }
        Verb::Leave { tenant } => {
            context.client()?.send(Method::POST, &format!("{}/leave", path(tenant)), Some(&json!({}))).await?;
            console.say(&format!("you have left {tenant}"));
            Ok(())
        }
    }
}
