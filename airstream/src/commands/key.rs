//! `airstream keys`: what programs show instead of a password; and, for operators, what signs access tokens.

use reqwest::Method;
use serde_json::{Value, json};

use super::command::command_id;
use super::{Context, Page, print_page};
use crate::client::segment;
use crate::failure::Outcome;
use crate::output::{Console, field};

/// What can be done with keys.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the keys of the tenant
    #[command(after_long_help = "Example:\n  airstream keys ls", alias = "list")]
    Ls(Page),
    /// Show one
    #[command(after_long_help = "Example:\n  airstream keys show key_1")]
    Show {
        /// Its id
        key: String,
    },
    /// Make a key; its secret is printed once
    #[command(after_long_help = "Examples:\n  \
        airstream keys create importer --scope commands:write --scope events:read\n  \
        airstream keys create reader --scope *:read --days 30")]
    Create {
        /// What it is for
        name: String,
        /// What it may do, such as commands:write; as often as needed
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// After how many days it ends
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        days: u32,
        /// Makes a repetition harmless [default: a new one]
        #[arg(long, value_name = "ID")]
        command_id: Option<String>,
    },
    /// Give a key a new secret; the old one goes on for a while
    #[command(after_long_help = "Example:\n  airstream keys rotate key_1 --overlap 3600")]
    Rotate {
        /// Its id
        key: String,
        /// For how many seconds the old secret goes on
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        overlap: u32,
    },
    /// End a key at once
    #[command(after_long_help = "Example:\n  airstream keys revoke key_1")]
    Revoke {
        /// Its id
        key: String,
    },
    /// The keys that sign access tokens; for operators
    #[command(subcommand)]
    Signing(Signing),
}

/// What can be done with the keys that sign.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Signing {
    /// List them
    #[command(after_long_help = "Example:\n  airstream keys signing ls", alias = "list")]
    Ls,
    /// Make another one; it signs in five minutes, and tokens of the old one go on until they end
    #[command(after_long_help = "Example:\n  airstream keys signing rotate")]
    Rotate,
}

/// A secret that is shown this once: alone on stdout, so that it can be piped.
fn secret(console: &Console, made: &Value) -> Outcome {
    if console.is_json() {
        return console.json(made);
    }
    console.say(&format!(
        "{} until {}; this is its secret, keep it now:",
        field(made, "id"),
        field(made, "expires_at")
    ));
    console.line(&field(made, "secret"))
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    let path = |key: &str| format!("/v1/api-keys/{}", segment(key));
    match verb {
        Verb::Ls(page) => {
            let found = client.get("/v1/api-keys", &page.query()).await?;
            let fields = ["id", "name", "prefix", "scopes", "last_used_at", "expires_at"];
            print_page(console, &found, &fields, "none yet: `airstream keys create`")
        }
        Verb::Show { key } => {
            let found = client.get(&path(key), &Vec::new()).await?;
            let fields = ["id", "name", "prefix", "scopes", "owner", "created_at", "last_used_at", "expires_at"];
            match console.is_json() {
                true => console.json(&found),
                false => console.pairs(&fields.map(|name| (name, field(&found, name)))),
            }
        }
        Verb::Create { name, scopes, days, command_id: command } => {
            let command = command_id(command.as_deref())?;
            let body = json!({ "name": name, "scopes": scopes, "expires_in_days": days });
            secret(console, &client.command(Method::POST, "/v1/api-keys", &body, &command).await?)
        }
        Verb::Rotate { key, overlap } => {
            let body = json!({ "overlap_seconds": overlap });
            secret(console, &client.send(Method::POST, &format!("{}/rotate", path(key)), Some(&body)).await?)
        }
        Verb::Revoke { key } => {
            client.send(Method::DELETE, &path(key), None).await?;
            console.say(&format!("{key} is worth nothing any more"));
            Ok(())
        }
        Verb::Signing(Signing::Ls) => {
            let found = client.get("/v1/operate/signing-keys", &Vec::new()).await?;
            print_page(console, &found, &["kid", "created_at", "signs_from_at", "until_at"], "none")
        }
        Verb::Signing(Signing::Rotate) => {
            let made = client.send(Method::POST, "/v1/operate/signing-keys/rotate", Some(&json!({}))).await?;
            match console.is_json() {
                true => console.json(&made),
                false => console.line(&field(&made, "kid")),
            }
        }
    }
}
