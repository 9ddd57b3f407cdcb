//! `airstream config`: what is in force, and why.

use anyhow::Context as _;
use nats::Signer;
use serde_json::{Map, Value, json};

use super::Context;
use crate::config::{FILE, Shown};
use crate::failure::Outcome;
use crate::output::{Console, cell};

/// What can be done with the configuration.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print every key with its value; secrets as ***
    #[command(after_long_help = "Examples:\n  \
        airstream config show --origin\n  \
        airstream config show --json")]
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Make a key with which a NATS server of your own believes us who may come in
    #[command(
        after_long_help = "The seed goes into nats.callout_seed, the issuer into the server's `auth_callout`. Nothing \
        is written down.\n\nExamples:\n  \
        airstream config nats-key\n  \
        airstream config nats-key --json"
    )]
    NatsKey,
    /// Print the path of the file that is read
    #[command(after_long_help = "Example:\n  airstream config path")]
    Path,
}

pub(crate) fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    match verb {
        Verb::NatsKey => nats_key(console),
        Verb::Show { origin } => {
            let shown = context.config(&[])?.shown()?;
            if console.is_json() {
                return console.json(&document(shown, *origin));
            }
            let headings: &[&str] = if *origin { &["key", "value", "origin"] } else { &["key", "value"] };
            let rows = shown.into_iter().map(|shown| {
                let mut row = vec![shown.key, cell(Some(&shown.value))];
                row.extend(origin.then_some(shown.origin));
                row
            });
            console.table(headings, rows.collect())
        }
        Verb::Path => {
            let path = context.config(&[])?.file.map(|path| std::path::absolute(&path).unwrap_or(path));
            if path.is_none() {
                console.say(&format!("there is no {FILE} here: the defaults and the environment are in force"));
            }
            match (console.is_json(), path) {
                (true, path) => console.json(&json!({ "path": path })),
                (false, Some(path)) => console.line(&path.display().to_string()),
                (false, None) => Ok(()),
            }
        }
    }
}

fn nats_key(console: &Console) -> Outcome {
    let seed = Signer::fresh_seed().context("no key can be made")?;
    // The account plays no part in the key.
    let issuer = Signer::new(&seed, "").context("no key can be made")?.issuer();
    if console.is_json() {
        return console.json(&json!({ "callout_seed": seed, "issuer": issuer }));
    }
    console.pairs(&[("nats.callout_seed", seed), ("issuer", issuer)])
}

/// Sections of keys, as in the file.
fn document(shown: Vec<Shown>, origin: bool) -> Value {
    let mut sections: Map<String, Value> = Map::new();
    for Shown { key, value, origin: from } in shown {
        let (section, name) = key.split_once('.').unwrap_or(("", &key));
        let value = if origin { json!({"value": value, "origin": from}) } else { value };
        let section = sections.entry(section.to_owned()).or_insert_with(|| json!({}));
        if let Some(keys) = section.as_object_mut() {
            keys.insert(name.to_owned(), value);
        }
    }
    Value::Object(sections)
}
