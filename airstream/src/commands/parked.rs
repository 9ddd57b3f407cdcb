//! `airstream parked`: what could not be handled, why, and what to do about it.

use serde_json::{Value, json};

use super::{Context, Page, items, print_page_without};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::field;

/// What can be done with what is parked.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List what waits for a decision
    #[command(after_long_help = "Example:\n  airstream parked list --all", alias = "ls")]
    List {
        /// Also what has been skipped
        #[arg(long)]
        all: bool,
        /// Only what this consumer has set aside
        #[arg(long, value_name = "NAME")]
        consumer: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one in full
    #[command(after_long_help = "Example:\n  airstream parked show runs_v1@16")]
    Show {
        /// Its id
        id: String,
    },
    /// Try it again, and then what waits behind it
    #[command(
        after_long_help = "Examples:\n  airstream parked retry runs_v1@16\n  airstream parked retry --all --consumer runs_v1"
    )]
    Retry {
        /// Its id
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Everything that is parked
        #[arg(long)]
        all: bool,
        /// Of everything, only what this consumer has set aside
        #[arg(long, value_name = "NAME", requires = "all")]
        consumer: Option<String>,
    },
    /// Leave it out for ever, and go on with what waits behind it
    #[command(after_long_help = "Example:\n  airstream parked skip runs_v1@16 --reason duplicate")]
    Skip {
        /// Its id
        id: String,
        /// Why; it is kept
        #[arg(long)]
        reason: String,
    },
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let console = context.console;
    let client = context.client()?;
    match verb {
        Verb::List { all, consumer, page } => {
            let mut query = page.query();
            query.push(("all", all.to_string()));
            query.extend(consumer.clone().map(|consumer| ("consumer", consumer)));
            let found = client.get("/v1/parked", &query).await?;
            let fields = ["id", "kind", "consumer", "position", "subject", "state", "tries", "parked_at", "reason"];
            // Why it is there matters most.
            print_page_without(&["parked", "tries", "subject", "kind"], console, &found, &fields, "nothing is parked")
        }
        Verb::Show { id } => {
            let found = client.get("/v1/parked", &vec![("all", true.to_string()), ("id", id.clone())]).await?;
            let one = items(&found).first();
            let Some(one) = one else {
                return Err(Failure::new(Exit::NotFound, format!("nothing with the id {id} is or was parked"))
                    .hint("`airstream parked list --all` shows what is"));
            };
            if console.is_json() {
                return console.json(one);
            }
            let names: Vec<String> = one.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
            let pairs: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), full(one, name))).collect();
            console.pairs(&pairs)
        }
        Verb::Retry { id, all, consumer } => {
            let mut body = json!({"all": all});
            let named = [("id", id), ("consumer", consumer)];
            for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
                body[name] = json!(value);
            }
            let answer = client.post("/v1/parked/retry", &body).await?;
            let released = field(&answer, "released");
            done(context, answer, &format!("is tried again: {released} in all, with what waits behind"))
        }
        Verb::Skip { id, reason } => {
            let body = json!({"id": id, "reason": reason});
            done(context, client.post("/v1/parked/skip", &body).await?, "is left out")
        }
    }
}

fn done(context: &Context<'_>, answer: Value, what: &str) -> Outcome {
    context.console.say(&format!("it {what}"));
    if context.console.is_json() { context.console.json(&answer) } else { Ok(()) }
}

/// Uncut: whoever asks for one wants to read it.
fn full(document: &Value, name: &str) -> String {
    match document.get(name) {
        Some(value @ (Value::Array(_) | Value::Object(_))) => value.to_string(),
        _ => field(document, name),
    }
}
