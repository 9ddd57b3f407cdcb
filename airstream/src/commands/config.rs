//! `airstream config`: what is in force, and why.

use serde_json::{Map, Value, json};

use super::Context;
use crate::config::{FILE, Shown};
use crate::failure::Outcome;
use crate::output::cell;

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
    /// Print the path of the file that is read
    #[command(after_long_help = "Example:\n  airstream config path")]
    Path,
}

pub(crate) fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    let loaded = context.config(&[])?;
    match verb {
        Verb::Show { origin } => {
            let shown = loaded.shown()?;
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
            let path = loaded.file.map(|path| std::path::absolute(&path).unwrap_or(path));
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
