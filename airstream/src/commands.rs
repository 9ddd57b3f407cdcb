//! One file per noun. Each has its part of the command line and what is done about it.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod command;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod contexts;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod event;
pub(crate) mod init;
pub(crate) mod instance;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod migrate;
pub(crate) mod parked;
pub(crate) mod projection;
pub(crate) mod restore;
mod run;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod user;
pub(crate) mod workflow;

use std::path::PathBuf;

use serde_json::Value;

use crate::cli::{Cli, Command, Global};
use crate::client::{Client, Query, Target};
use crate::config::{Flag, Loaded, load};
use crate::contexts as kept;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Console, rows};
use crate::{paths, up};

/// What every command is given.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) global: &'a Global,
    pub(crate) console: &'a Console,
}

impl Context<'_> {
    /// The configuration, with a command's own flags on top.
    pub(crate) fn config(&self, flags: &[Flag]) -> Outcome<Loaded> {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let mut all = flags.to_vec();
        if let Some(path) = &self.global.data_dir {
            all.push(Flag { name: "--data-dir", key: "stack.data_dir", value: path.display().to_string() });
        }
        load(self.global.config.as_deref(), environment, &all)
    }

    pub(crate) fn data_dir(&self) -> Outcome<PathBuf> {
        paths::data_dir(&self.config(&[])?.config)
    }

    /// The server that is meant. Whoever names one needs no local configuration.
    pub(crate) fn client(&self) -> Outcome<Client> {
        let token = self.global.token.clone();
        let target = match &self.global.url {
            Some(url) => Target::Given { url: url.clone(), token },
            // Who gives a token wants to be who it says.
            None if token.is_some() => Target::Local { data_dir: self.data_dir()?, token },
            None => match self.signed_in()? {
                Some(name) => Target::Context(name),
                None => Target::Local { data_dir: self.data_dir()?, token },
            },
        };
        Client::new(target)
    }

    /// The context that is meant, where somebody is signed in: the one that is named, else the current one, unless the stack of
    /// another data directory is asked for.
    fn signed_in(&self) -> Outcome<Option<String>> {
        let store = kept::load()?;
        if let Some(name) = &self.global.context {
            return match store.contexts.contains_key(name) {
                true => Ok(Some(name.clone())),
                false => Err(Failure::new(Exit::NotFound, format!("there is no context `{name}`"))
                    .hint("`airstream context ls` lists them")),
            };
        }
        let Some((name, saved)) = store.current.and_then(|name| {
            let saved = store.contexts.get(&name).cloned()?;
            Some((name, saved))
        }) else {
            return Ok(None);
        };
        let meant = match &saved.data_dir {
            // A local stack nobody is signed in to has a token of its own.
            Some(data_dir) => saved.session.is_some() && *data_dir == self.data_dir()?,
            None => self.global.data_dir.is_none(),
        };
        Ok(meant.then_some(name))
    }
}

pub(crate) async fn run(cli: Cli, console: &Console) -> Outcome {
    let context = Context { global: &cli.global, console };
    match &cli.command {
        Command::Up(arguments) => up::run(&context, arguments).await,
        Command::Down(arguments) => down::run(&context, arguments).await,
        Command::Status(arguments) => status::run(&context, arguments).await,
        Command::Logs(arguments) => logs::run(&context, arguments).await,
        Command::Serve(arguments) => serve::run(&context, arguments).await,
        Command::Doctor(arguments) => doctor::run(&context, arguments).await,
        Command::Migrate(arguments) => migrate::run(&context, arguments).await,
        Command::Backup(verb) => backup::run(&context, verb).await,
        Command::Restore(arguments) => restore::run(&context, arguments).await,
        Command::Config(verb) => config::run(&context, verb),
        Command::Commands(verb) => command::run(&context, verb).await,
        Command::Events(verb) => event::run(&context, verb).await,
        Command::Workflows(verb) => workflow::run(&context, verb).await,
        Command::Projections(verb) => projection::run(&context, verb).await,
        Command::Init(arguments) => init::run(&context, arguments).await,
        Command::Login(arguments) => login::run(&context, arguments).await,
        Command::Logout => login::log_out(&context).await,
        Command::Whoami => login::who_am_i(&context).await,
        Command::Context(verb) => contexts::run(&context, verb),
        Command::Tenants(verb) => tenant::run(&context, verb).await,
        Command::Users(verb) => user::run(&context, verb).await,
        Command::Keys(verb) => key::run(&context, verb).await,
        Command::Audit(verb) => audit::run(&context, verb).await,
        Command::Instances => instance::run(&context).await,
        Command::Parked(verb) => parked::run(&context, verb).await,
        Command::Bench(verb) => bench::run(&context, verb).await,
        Command::Completion(arguments) => completion::run(&context, arguments),
        Command::Version => completion::version(&context),
    }
}

/// The flags of every list that comes in pages.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Page {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Go on where the last page ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl Page {
    pub(crate) fn query(&self) -> Query {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        query
    }
}

/// The documents of a page.
pub(crate) fn items(page: &Value) -> &[Value] {
    page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Says how to get the next page, if there is one.
pub(crate) fn more(console: &Console, page: &Value) {
    if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
        console.say(&format!("more with --cursor {cursor}"));
    }
}

/// Prints a page: the whole document for programs, the named fields for people.
pub(crate) fn print_page(console: &Console, page: &Value, fields: &[&str], none: &str) -> Outcome {
    print_page_without(&[], console, page, fields, none)
}

/// The same with headings that are left out first when a terminal is too narrow for all.
pub(crate) fn print_page_without(
    first: &[&str],
    console: &Console,
    page: &Value,
    fields: &[&str],
    none: &str,
) -> Outcome {
    if console.is_json() {
        return console.json(page);
    }
    if items(page).is_empty() {
        console.say(none);
        return Ok(());
    }
    let headings: Vec<String> = fields.iter().map(|field| field.trim_end_matches("_at").replace('_', " ")).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    console.table_without(first, &headings, rows(items(page), fields))?;
    more(console, page);
    Ok(())
}

/// Says what a command led to.
pub(crate) fn print_answer(console: &Console, answer: &Value) -> Outcome {
    if console.is_json() {
        return console.json(answer);
    }
    let events = answer.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let types: Vec<String> = events.iter().map(|event| crate::output::field(event, "type")).collect();
    let mut pairs = vec![
        ("command id", crate::output::field(answer, "command_id")),
        ("stream", crate::output::field(answer, "stream")),
        ("position", crate::output::field(answer, "position")),
        ("version", crate::output::field(answer, "version")),
        ("events", if types.is_empty() { "none: nothing had to change".to_owned() } else { types.join(", ") }),
    ];
    if let Some(run) = answer.get("run_id").and_then(Value::as_str) {
        pairs.insert(0, ("run id", run.to_owned()));
    }
    console.pairs(&pairs)
}
