//! `airstream projections`: how far the read models are, and whether they are right.

use serde_json::{Value, json};

use super::{Context, items};
use crate::client::{Client, segment};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{cell, field, rows, short};

/// What can be done with projections.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show how far each one is
    #[command(after_long_help = "Example:\n  airstream projections status")]
    Status,
    /// Fill one anew from the log, beside the live one, and switch
    #[command(after_long_help = "Example:\n  airstream projections rebuild runs")]
    Rebuild {
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
        Verb::Status => {
            let found = client.get("/v1/projections", &Vec::new()).await?;
            if console.is_json() {
                return console.json(&found);
            }
            console.say(&format!("the log ends at {}", field(&found, "head")));
            let fields =
                ["consumer", "position", "lag_events", "parked", "effects_scheduled", "effects_parked", "updated_at"];
            // Short headings: seven columns have to fit into a terminal.
            let headings = ["consumer", "position", "lag", "parked", "effects", "stuck", "updated"];
            console.table(&headings, rows(items(&found), &fields))
        }
        Verb::Rebuild { name } => {
            // Both names of it are seen in `projections status` and here.
            let name = projection(name).unwrap_or(name);
            let result = long(context, &client, name, "rebuild").await?;
            report(context, &[result])
        }
        Verb::Verify { name } => {
            let names = match name {
                Some(name) => vec![projection(name).unwrap_or(name).to_owned()],
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

/// Those that have rows. Reactors have checkpoints too, and nothing to compare.
async fn names(client: &Client) -> Outcome<Vec<String>> {
    let found = client.get("/v1/projections", &Vec::new()).await?;
    Ok(items(&found).iter().filter_map(|item| projection(&field(item, "consumer")).map(str::to_owned)).collect())
}

/// A projection's consumer is called `<name>_v<version>`; a reactor's has no version.
fn projection(consumer: &str) -> Option<&str> {
    let (name, version) = consumer.rsplit_once("_v")?;
    (!version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())).then_some(name)
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
    fn projections_are_told_from_reactors() {
        assert_eq!(projection("runs_v1"), Some("runs"));
        assert_eq!(projection("a_v_v12"), Some("a_v"));
        for reactor in ["workflow-steps", "x_v", "x_version"] {
            assert_eq!(projection(reactor), None);
        }
    }
}
