//! `airstream events`: the log, live and in pages.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{Context, Page, items, more};
use crate::client::{Client, Query, segment};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{field, seconds, short};
use crate::sse::{Message, Parser};

/// The longest pause between two tries to reach the server again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What can be done with events.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Follow the log; goes on after a broken connection where it was
    #[command(after_long_help = "Examples:\n  \
        airstream events tail                             what happens from now on\n  \
        airstream events tail --since-start --category run\n  \
        airstream events tail --last 20 --type run.started,run.completed --json\n  \
        airstream events tail --from p1-2a --count 1")]
    Tail(Tail),
    /// Show a page of the log
    #[command(after_long_help = "Example:\n  airstream events ls --stream run_1 --limit 20", alias = "list")]
    Ls {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
    },
    /// Show events in full
    #[command(after_long_help = "Examples:\n  airstream events show p1-2a\n  airstream events show p1-2a.0")]
    Show {
        /// A position (p1-2a), one event there (p1-2a.0), or an event's id
        id: String,
    },
}

/// Which events.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Filter {
    /// Only of this type; may be repeated, or a list with commas
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only of this category
    #[arg(long)]
    category: Option<String>,
    /// Only of this stream's id
    #[arg(long, value_name = "ID")]
    stream: Option<String>,
}

impl Filter {
    fn query(&self) -> Query {
        let mut query = Query::new();
        if !self.types.is_empty() {
            query.push(("type", self.types.join(",")));
        }
        query.extend(self.category.clone().map(|category| ("category", category)));
        query.extend(self.stream.clone().map(|stream| ("stream", stream)));
        query
    }
}

/// The flags of `events tail`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Tail {
    /// What came after this position, as printed with each event
    #[arg(long, value_name = "POSITION", group = "begin")]
    from: Option<String>,
    /// Everything there is
    #[arg(long, group = "begin")]
    since_start: bool,
    /// The last ones there are
    #[arg(long, value_name = "N", group = "begin")]
    last: Option<u64>,
    /// End after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    filter: Filter,
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    match verb {
        Verb::Tail(tail) => follow(context, tail).await,
        Verb::Ls { filter, page } => {
            let query = [filter.query(), page.query()].concat();
            let found = context.client()?.get("/v1/events", &query).await?;
            if console.is_json() {
                return console.json(&found);
            }
            let all: Vec<Parts> = items(&found)
                .iter()
                .map(|item| parts(&field(item, "cursor"), item.get("event").unwrap_or(&Value::Null)))
                .collect();
            let mut widths = [0; 4];
            for parts in &all {
                for (width, part) in widths.iter_mut().zip(parts) {
                    *width = part.chars().count().max(*width);
                }
            }
            for parts in &all {
                console.line(&short(&line(parts, widths), console.width().unwrap_or(usize::MAX)))?;
            }
            more(console, &found);
            Ok(())
        }
        Verb::Show { id } => {
            let found = context.client()?.get(&format!("/v1/events/{}", segment(id)), &Vec::new()).await?;
            if console.is_json() {
                return console.json(&found);
            }
            for item in items(&found) {
                console.line(&format!(
                    "{}  {}",
                    field(item, "cursor"),
                    field(item.get("event").unwrap_or(&Value::Null), "type")
                ))?;
                let text = serde_json::to_string_pretty(item.get("event").unwrap_or(item));
                console.line(&text.map_err(|error| Failure::because(Exit::Failed, &error))?)?;
            }
            Ok(())
        }
    }
}

async fn follow(context: &Context<'_>, tail: &Tail) -> Outcome {
    let console = context.console;
    let client = context.client()?;
    let mut query = tail.filter.query();
    if let Some(from) = &tail.from {
        from.parse::<kernel::Cursor>().map_err(|error| Failure::usage(format!("--from: {error}")))?;
        query.push(("from", from.clone()));
    } else if tail.since_start {
        query.push(("from", kernel::Position::START.to_string()));
    } else if let Some(last) = tail.last {
        query.push(("last", last.to_string()));
    }
    let mut left = tail.count.unwrap_or(u64::MAX);
    let mut parser = Parser::default();
    // The first connection has to work; later ones may wait for the server to come back.
    let mut response = client.events(&query, None).await?;
    while left > 0 {
        let mut body = response.bytes_stream();
        while let Some(Ok(bytes)) = body.next().await {
            for message in parser.push(&bytes).iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                if print(context, message)? {
                    left -= 1;
                }
            }
            if left == 0 {
                return Ok(());
            }
        }
        drop(body);
        parser.reconnected();
        if parser.last_id().is_some() {
            // The id says where to go on; where to begin has been answered.
            query.retain(|(name, _)| *name != "last" && *name != "from");
        }
        console.say("the connection broke; trying again");
        response = again(&client, &query, parser.last_id()).await?;
        console.say("connected again");
    }
    Ok(())
}

/// Tries until the server is back. Only a refusal that will not change ends it.
async fn again(client: &Client, query: &Query, last_id: Option<&str>) -> Outcome<reqwest::Response> {
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match client.events(query, last_id).await {
            Err(failure) if matches!(failure.exit, Exit::Unavailable | Exit::Timeout) => {}
            other => return other,
        }
    }
}

/// False: not an event of the log.
fn print(context: &Context<'_>, message: &Message) -> Outcome<bool> {
    let cursor = message.id.as_deref().unwrap_or_default();
    let Ok(event) = serde_json::from_str::<Value>(&message.data) else {
        context.console.say(&format!("the server says: {}", short(&message.data, 200)));
        return Ok(false);
    };
    if event.get("specversion").is_none() && field(&event, "type") != "unreadable" {
        // A problem document: the stream is about to end.
        context.console.say(&format!("the server says: {}", field(&event, "detail")));
        return Ok(false);
    }
    if context.console.is_json() {
        context.console.ndjson(&json!({"cursor": cursor, "event": event}))?;
    } else {
        // What comes next is not known: room for what is usual.
        context.console.line(&line(&parts(cursor, &event), [0, 10, 24, 0]))?;
    }
    Ok(true)
}

/// Time, position, type, stream, data.
type Parts = [String; 5];

/// One event for people.
fn parts(cursor: &str, event: &Value) -> Parts {
    let of = |name: &str| field(event, name);
    let source = of("source");
    let category = source.rsplit('/').next().unwrap_or_default();
    let data = event.get("data").map(|data| short(&data.to_string(), 60)).unwrap_or_default();
    [seconds(&of("time")), cursor.to_owned(), of("type"), format!("{category}/{}", of("subject")), data]
}

/// Its parts in a line, all but the last at least so wide.
fn line([time, cursor, kind, stream, data]: &Parts, [a, b, c, d]: [usize; 4]) -> String {
    let line = format!("{time:a$}  {cursor:b$}  {kind:c$}  {stream:d$}  {data}");
    line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "specversion": "1.0", "type": "run.started", "source": "/dev/run", "subject": "run_1",
            "time": "2026-11-20T09:45:27.5Z", "data": {"a": "\n"},
        });
        assert_eq!(
            line(&parts("p1-2a.0", &event), [0, 10, 24, 0]),
            "2026-11-20T09:45:27Z  p1-2a.0     run.started               run/run_1  {\"a\":\"\\n\"}"
        );
    }
}
