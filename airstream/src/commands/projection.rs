//! `airstream projections`: how far the read models are, and whether they are right.

use serde_json::{Value, json};

use super::{Context, items};
use crate::client::{Client, segment};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{cell, field, rows, short};

/// What can be done with projections.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show how far each one is, and which rebuilds are running
    #[command(after_long_help = "Example:\n  airstream projections status")]
    Status,
    /// Fill one anew from the log, beside the live one, compare, and switch; Ctrl-C stops it
    #[command(after_long_help = "Example:\n  airstream projections rebuild runs")]
    Rebuild {
        /// Its name, such as `runs`
        name: String,
    },
    /// Bring back the rows that the last rebuild has switched out; they catch up from where they stand
    #[command(after_long_help = "Example:\n  airstream projections rollback runs")]
    Rollback {
        /// Its name, such as `runs`
        name: String,
    },
    /// Compare rows with what the log says they should be; exit code 6 when they differ or commits are parked
    #[command(
        after_long_help = "Examples:\n  airstream projections verify\n  airstream projections verify runs --json"
    )]
    Verify {
        /// Its name [default: all of them]
        name: Option<String>,
    },
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    let client = context.client()?;
    match verb {
        Verb::Status => status(context, &client).await,
        Verb::Rebuild { name } => {
            let result = long(context, &client, name, "rebuild").await?;
            if let Some(held) = result.get("held_ms").and_then(Value::as_f64) {
                console.say(&format!("the live projection was held still for {held:.1} ms"));
            }
            report(context, &[result])
        }
        Verb::Rollback { name } => {
            let path = format!("/v1/projections/{}/rollback", segment(name));
            let answer = client.post(&path, &json!({})).await?;
            if console.is_json() {
                return console.json(&answer);
            }
            let of = |key: &str| field(&answer, key);
            let (projection, from, to) = (of("projection"), of("from"), of("to"));
            console.say(&format!("{projection} went back from {from} to {to} and catches up from there"));
            Ok(())
        }
        Verb::Verify { name } => {
            let names = match name {
                Some(name) => vec![name.clone()],
                None => names(&client).await?,
            };
            let mut results = Vec::new();
            for name in names {
                results.push(long(context, &client, &name, "verify").await?);
            }
            report(context, &results)?;
            let differs =
                |result: &Value| result.get("differences").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
            let found = results.iter().any(|result| differs(result) || parked(result) > 0);
            if found { Err(Failure::silent(Exit::Findings)) } else { Ok(()) }
        }
    }
}

async fn status(context: &Context<'_>, client: &Client) -> Outcome {
    let console = context.console;
    let found = client.get("/v1/projections", &Vec::new()).await?;
    if console.is_json() {
        return console.json(&found);
    }
    console.say(&format!("the log ends at {}", field(&found, "head")));
    let fields = ["consumer", "position", "lag_events", "parked", "effects_scheduled", "effects_parked", "updated_at"];
    // Short headings: seven columns have to fit into a terminal.
    let headings = ["consumer", "position", "lag", "parked", "effects", "stuck", "updated"];
    console.table(&headings, rows(items(&found), &fields))?;
    for item in items(&found) {
        let consumer = field(item, "consumer");
        if let Some(fold) = item.get("fold").filter(|fold| fold.is_object()) {
            console.say(&format!("{consumer}: {}", folding(fold)));
        }
        if let Some(kept) = item.get("kept").filter(|kept| kept.is_object()) {
            let (position, since) = (field(kept, "position"), field(kept, "kept_at"));
            console.say(&format!("{consumer}: rows of before {since} are kept for `rollback`, at {position}"));
        }
    }
    Ok(())
}

/// One sentence about a rebuild or a verification.
fn folding(fold: &Value) -> String {
    let number = |name: &str| fold.get(name).and_then(Value::as_f64);
    let verb = field(fold, "verb");
    if fold.get("running").and_then(Value::as_bool) != Some(true) {
        return format!("a {verb} was killed; the next one begins anew and drops what is left of it");
    }
    let (done, total) = (number("done").unwrap_or_default(), number("total").unwrap_or_default());
    let rate = number("per_second").unwrap_or_default();
    let left = number("eta_seconds").map(|left| format!(", {left:.0} s left")).unwrap_or_default();
    format!("{verb}, {}: {done} of {total} commits, {rate:.0} per second{left}", phase(fold))
}

fn phase(document: &Value) -> String {
    field(document, "phase").replace('_', " ")
}

/// Those that have rows. Reactors have checkpoints too, and nothing to compare.
async fn names(client: &Client) -> Outcome<Vec<String>> {
    let found = client.get("/v1/projections", &Vec::new()).await?;
    let has_rows = |item: &&Value| item.get("projection").is_some_and(Value::is_string);
    Ok(items(&found).iter().filter(has_rows).map(|item| field(item, "consumer")).collect())
}

/// Something that reports its progress; the last report is the result.
async fn long(context: &Context<'_>, client: &Client, name: &str, verb: &str) -> Outcome<Value> {
    let bar = context.console.bar(&format!("{verb} {name}"));
    let mut result = None;
    let path = format!("/v1/projections/{}/{verb}", segment(name));
    let done = client.lines(&path, |document| {
        if let Some(problem) = document.get("problem") {
            let status = problem.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
            return Err(Failure::of_problem(status.unwrap_or(500), problem.clone()));
        }
        if let Some(found) = document.get("result") {
            result = Some(found.clone());
        }
        let number = |name: &str| document.get(name).and_then(Value::as_u64);
        if let (Some(done), Some(total)) = (number("done"), number("total")) {
            let rate = document.get("per_second").and_then(Value::as_f64).unwrap_or_default();
            bar.set_message(format!("{verb} {name}, {} {rate:.0}/s", phase(&document)));
            bar.set_length(total);
            bar.set_position(done);
        }
        Ok(())
    });
    let done = done.await;
    bar.finish_and_clear();
    done?;
    result.ok_or_else(|| {
        Failure::new(Exit::Unavailable, format!("the server ended the {verb} of {name} without a result"))
            .hint("nothing was switched; `airstream logs` may say why")
    })
}

/// Commits that could not be handled: neither the rows nor what they were compared with know them.
fn parked(result: &Value) -> u64 {
    result.get("parked").and_then(Value::as_u64).unwrap_or(0)
}

fn verdict(tables: usize, parked: u64) -> String {
    let verdict = match tables {
        0 => "equal".to_owned(),
        1 => "1 table differs".to_owned(),
        tables => format!("{tables} tables differ"),
    };
    match parked {
        0 => verdict,
        1 => format!("{verdict}, except 1 parked commit that is in neither"),
        parked => format!("{verdict}, except {parked} parked commits that are in neither"),
    }
}

fn report(context: &Context<'_>, results: &[Value]) -> Outcome {
    let console = context.console;
    if console.is_json() {
        return console.json(&json!({"items": results}));
    }
    let differences = |result: &Value| result.get("differences").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = results.iter().map(|result| {
        let found = differences(result);
        let of = |name: &str| field(result, name);
        let verdict = verdict(found.len(), parked(result));
        vec![of("projection"), of("position"), of("rows"), parked(result).to_string(), verdict]
    });
    console.table(&["projection", "position", "rows", "parked", "verdict"], rows.collect())?;
    for result in results {
        for difference in differences(result) {
            console.line(&format!(
                "\n{}.{}: {} rows only in the table, {} only according to the log",
                field(result, "projection"),
                field(&difference, "table"),
                field(&difference, "only_live"),
                field(&difference, "only_log"),
            ))?;
            for example in difference.get("examples").and_then(Value::as_array).into_iter().flatten() {
                console.line(&format!("  {}", short(&cell(Some(example)), 200)))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_is_not_said_of_what_was_left_out() {
        assert_eq!(verdict(0, 0), "equal");
        assert_eq!(verdict(0, 2), "equal, except 2 parked commits that are in neither");
        assert_eq!(verdict(1, 1), "1 table differs, except 1 parked commit that is in neither");
        assert_eq!((parked(&json!({"parked": 3})), parked(&json!({}))), (3, 0));
    }

    #[test]
    fn a_second_terminal_reads_how_far_a_rebuild_is() {
        let fold = json!({"verb": "rebuild", "phase": "catch_up", "done": 40, "total": 100, "per_second": 20.2,
            "eta_seconds": 3.0, "running": true});
        assert_eq!(folding(&fold), "rebuild, catch up: 40 of 100 commits, 20 per second, 3 s left");
        let killed = json!({"verb": "verify", "phase": "fold", "running": false});
        assert!(folding(&killed).starts_with("a verify was killed"));
    }
}
