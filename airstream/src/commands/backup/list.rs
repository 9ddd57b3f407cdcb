//! `airstream backup ls`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::folder::{self, Folder};
use crate::commands::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{bytes, seconds};
use crate::paths;

pub(super) fn run(context: &Context<'_>, folder: Option<&Path>) -> Outcome {
    let console = context.console;
    let parent = match folder {
        Some(folder) => folder.to_owned(),
        None => paths::backups(&context.data_dir()?),
    };
    let mut items: Vec<Value> = folders(&parent)?.iter().filter_map(|path| describe(path)).collect();
    // Oldest first: the newest one ends next to the prompt.
    items.sort_by_key(|item| item.get("created_at").map(ToString::to_string));
    let unfinished = folder::unfinished(&parent);
    if console.is_json() {
        return console.json(&json!({"items": items, "unfinished": unfinished}));
    }
    if items.is_empty() {
        console.say(&format!("no backups in {}", parent.display()));
    } else {
        let text = |item: &Value, name: &str| crate::output::field(item, name);
        let rows = items.iter().map(|item| {
            let age = item.get("age_seconds").and_then(Value::as_i64).map(age).unwrap_or_default();
            let size = item.get("bytes").and_then(Value::as_u64).map(bytes).unwrap_or_default();
            let state = match item.get("problem").and_then(Value::as_str) {
                Some(problem) => format!("NOT GOOD: {problem}"),
                None => match item.get("verified_at").and_then(Value::as_str) {
                    Some(at) => format!("verified {}", seconds(at)),
                    None => "not verified".to_owned(),
                },
            };
            vec![text(item, "name"), text(item, "created_at"), age, size, text(item, "position"), state]
        });
        console.table(&["name", "created", "age", "size", "log up to", "state"], rows.collect())?;
    }
    for path in unfinished {
        console.say(&format!("{} was not finished and is no backup; the next `create` removes it", path.display()));
    }
    Ok(())
}

fn folders(parent: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = match parent.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::new(Exit::Failed, format!("could not look into {}: {error}", parent.display())));
        }
    };
    let hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !hidden(path)).collect())
}

/// A backup as a document; a folder that has nothing of one is passed over.
fn describe(path: &Path) -> Option<Value> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    match Folder::open(path) {
        Ok(found) => {
            let manifest = &found.manifest;
            let age = (runtime::clock::now() - manifest.created_at).num_seconds().max(0);
            // The content is read by `verify`; that everything is there can be seen from here.
            let missing = manifest
                .pieces()
                .find(|piece| found.path.join(&piece.file).metadata().map(|file| file.len()).ok() != Some(piece.bytes));
            let problem = missing.map(|piece| format!("{} is missing or has another size", piece.file));
            Some(json!({
                "name": name,
                "path": path,
                "created_at": manifest.created_at,
                "age_seconds": age,
                "bytes": manifest.bytes(),
                "position": manifest.position(),
                "log": manifest.log.identity,
                "good": problem.is_none(),
                "problem": problem,
                "verified_at": found.verified().map(|note| note.verified_at),
            }))
        }
        Err(problem) if path.join("manifest.json").exists() || path.join("SHA256SUMS").exists() => {
            Some(json!({"name": name, "path": path, "good": false, "problem": problem}))
        }
        Err(_) => None,
    }
}

/// `3 d`, `5 h`, `12 min`.
fn age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
