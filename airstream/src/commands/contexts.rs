//! `airstream context`: where one is signed in.

use serde_json::json;

use super::Context;
use crate::contexts::{self, Saved};
use crate::failure::{Exit, Failure, Outcome};

/// What can be done with contexts.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the servers that are known here, and who we are there
    #[command(after_long_help = "Example:\n  airstream context ls", alias = "list")]
    Ls,
    /// Talk to another one from now on
    #[command(after_long_help = "Examples:\n  airstream context use air.example\n  airstream context use --none")]
    Use {
        /// Its name
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        name: Option<String>,
        /// None of them: the local stack with its own token
        #[arg(long)]
        none: bool,
    },
    /// Add a server without signing in
    #[command(after_long_help = "Example:\n  airstream context add prod --server https://air.example")]
    Add {
        /// Its name
        name: String,
        /// Its address
        #[arg(long, value_name = "URL")]
        server: String,
    },
    /// Forget a server, and the session there
    #[command(after_long_help = "Example:\n  airstream context rm air.example", alias = "remove")]
    Rm {
        /// Its name
        name: String,
    },
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no context `{name}`")).hint("`airstream context ls` lists them")
}

pub(crate) fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    match verb {
        Verb::Ls => {
            let store = contexts::load()?;
            if console.is_json() {
                let document: Vec<_> = store
                    .contexts
                    .iter()
                    .map(|(name, saved)| {
                        let session = saved.session.as_ref();
                        json!({
                            "name": name,
                            "current": store.current.as_ref() == Some(name),
                            "server": saved.place(),
                            "user": session.map(|session| &session.user),
                            "tenant": session.and_then(|session| session.tenant.as_ref()),
                        })
                    })
                    .collect();
                return console.json(&json!({ "items": document }));
            }
            if store.contexts.is_empty() {
                console.say("none yet: `airstream login` makes one");
                return Ok(());
            }
            let rows = store.contexts.iter().map(|(name, saved)| {
                let session = saved.session.as_ref();
                let mark = if store.current.as_ref() == Some(name) { "*" } else { "" };
                vec![
                    mark.to_owned(),
                    name.clone(),
                    saved.place(),
                    session.map_or_else(|| "logged out".to_owned(), |session| session.user.clone()),
                    session.and_then(|session| session.tenant.clone()).unwrap_or_default(),
                ]
            });
            console.table(&["", "name", "server", "user", "tenant"], rows.collect())
        }
        Verb::Use { name, .. } => {
            contexts::change(|store| {
                if let Some(name) = name
                    && !store.contexts.contains_key(name)
                {
                    return Err(unknown(name));
                }
                store.current.clone_from(name);
                Ok(())
            })?;
            console.say(&match name {
                Some(name) => format!("talking to {name}"),
                None => "talking to the local stack with its own token".to_owned(),
            });
            Ok(())
        }
        Verb::Add { name, server } => {
            if !["http://", "https://"].iter().any(|scheme| server.starts_with(scheme)) {
                return Err(Failure::usage(format!("'{server}' is not an address such as https://air.example")));
            }
            contexts::change(|store| {
                let saved = Saved { url: Some(server.trim_end_matches('/').to_owned()), ..Saved::default() };
                match store.contexts.contains_key(name) {
                    true => Err(Failure::new(Exit::Conflict, format!("there is a context `{name}` already"))),
                    false => {
                        store.contexts.insert(name.clone(), saved);
                        Ok(())
                    }
                }
            })?;
            console.say(&format!("added {name}: `airstream login --context {name}`"));
            Ok(())
        }
        Verb::Rm { name } => {
            contexts::change(|store| {
                store.contexts.remove(name).ok_or_else(|| unknown(name))?;
                if store.current.as_ref() == Some(name) {
                    store.current = None;
                }
                Ok(())
            })?;
            console.say(&format!("forgot {name}; a session there goes on until it is revoked or ends"));
            Ok(())
        }
    }
}
