//! The command line as a tree. What a noun can do stands in its file under `commands/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    audit, backup, bench, command, completion, config, contexts, doctor, down, event, init, key, login, logs, migrate,
    parked, projection, restore, serve, status, tenant, user, workflow,
};
use crate::up;

/// A backend whose every change is an event.
#[derive(Debug, Parser)]
#[command(
    name = "airstream",
    version,
    about = "A backend whose every change is an event",
    long_about = "A backend whose every change is an event: commands go in, events come out and stay, read models and \
                  workflows follow them.\n\nData is printed to stdout, words to stderr.",
    after_long_help = "Examples:\n  \
        airstream up                          start everything on this machine\n  \
        airstream events tail --since-start   see what has happened and what happens\n  \
        airstream status --json               addresses and credentials for scripts\n\n\
        Exit codes:\n  \
        0 ok, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 conflict, 6 findings, 7 timeout,\n  \
        8 unavailable, 130 interrupted"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How data is printed
    #[arg(short = 'o', long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// The same as `-o json`; streams are printed as one document per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The data directory of the local stack
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The configuration file [default: airstream.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Talk to this server instead of the local stack
    #[arg(long, global = true, value_name = "URL", env = "AIRSTREAM_URL")]
    pub(crate) url: Option<String>,
    /// The token [default: the local stack's own]; better given as AIRSTREAM_TOKEN than here
    #[arg(long, global = true, value_name = "TOKEN", env = "AIRSTREAM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Talk to this server, as who is signed in there; `airstream context ls` lists them
    #[arg(long, global = true, value_name = "NAME", env = "AIRSTREAM_CONTEXT", conflicts_with = "url")]
    pub(crate) context: Option<String>,
    /// No words but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More words; twice: all of them
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Everything that can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine: NATS, PostgreSQL and the platform
    Up(up::Arguments),
    /// Stop the local stack
    Down(down::Arguments),
    /// Show where the local stack is and how to get in
    Status(status::Arguments),
    /// Show the logs of the local stack
    Logs(logs::Arguments),
    /// Run the platform, or parts of it, against servers that are there already
    Serve(serve::Arguments),
    /// Look for what would be in the way of a start
    Doctor(doctor::Arguments),
    /// Bring the database's tables up to date
    Migrate(migrate::Arguments),
    /// Make backups of a running stack, list and verify them
    #[command(subcommand, alias = "backups")]
    Backup(backup::Verb),
    /// Make a stack from a backup
    Restore(restore::Arguments),
    /// Show the configuration and where it comes from
    #[command(subcommand)]
    Config(config::Verb),
    /// Publish commands and look up what became of them
    #[command(subcommand, alias = "command")]
    Commands(command::Verb),
    /// Read the log of events
    #[command(subcommand, alias = "event")]
    Events(event::Verb),
    /// Define, start and watch workflows
    #[command(subcommand, alias = "workflow")]
    Workflows(workflow::Verb),
    /// Look at the read models, rebuild and verify them
    #[command(subcommand, alias = "projection")]
    Projections(projection::Verb),
    /// From nothing to somebody who works in a tenant of their own
    Init(init::Arguments),
    /// Sign in as a person
    Login(login::Login),
    /// End the session here
    #[command(after_long_help = "Example:\n  airstream logout")]
    Logout,
    /// Show who the server takes us for
    #[command(after_long_help = "Example:\n  airstream whoami --json", alias = "who-am-i")]
    Whoami,
    /// Servers that are known here, and who we are there
    #[command(subcommand, alias = "contexts")]
    Context(contexts::Verb),
    /// The tenants that you belong to
    #[command(subcommand, alias = "tenant")]
    Tenants(tenant::Verb),
    /// The people of the tenant that you work in
    #[command(subcommand, alias = "user")]
    Users(user::Verb),
    /// The keys of programs, and those that sign access tokens
    #[command(subcommand, alias = "key")]
    Keys(key::Verb),
    /// Who did what in the tenant that you work in
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Show the processes that share the work, and what each of them does
    #[command(after_long_help = "Example:\n  airstream instances")]
    Instances,
    /// Events and effects that could not be handled
    #[command(subcommand)]
    Parked(parked::Verb),
    /// Measure what we do against what the machine could do
    #[command(subcommand)]
    Bench(bench::Verb),
    /// Print a completion script for a shell
    Completion(completion::Arguments),
    /// Print the version
    #[command(after_long_help = "Example:\n  airstream version --json")]
    Version,
}

impl Command {
    /// Whether this is about what runs or lies here, so that another server's address has no meaning.
    pub(crate) fn is_about_this_machine(&self) -> bool {
        matches!(
            self,
            Command::Up(_)
                | Command::Down(_)
                | Command::Status(_)
                | Command::Logs(_)
                | Command::Serve(_)
                | Command::Doctor(_)
                | Command::Migrate(_)
                | Command::Backup(_)
                | Command::Restore(_)
                | Command::Bench(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_shows_an_example() {
        fn look(command: &clap::Command, path: &str, without: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
                if !help.contains("  airstream ") {
                    without.push(path.clone());
                }
            }
            command.get_subcommands().for_each(|inner| look(inner, &path, without));
        }
        let mut without = Vec::new();
        look(&Cli::command(), "", &mut without);
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn examples_parse() {
        fn look(command: &clap::Command, lines: &mut Vec<String>) {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let commands = help.lines().map(str::trim_start).filter(|line| line.starts_with("airstream "));
            lines.extend(commands.map(str::to_owned));
            command.get_subcommands().for_each(|inner| look(inner, lines));
        }
        let mut lines = Vec::new();
        look(&Cli::command(), &mut lines);
        for line in lines {
            // Two or more blanks separate the command from its explanation.
            let command = line.split("  ").next().unwrap();
            let words = command.split(' ').take_while(|word| !["|", "<", ">"].contains(word));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn globals_are_taken_behind_the_verb() {
        let cli = Cli::try_parse_from(["airstream", "events", "ls", "--json", "--data-dir", "/d", "-vv"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.data_dir, Some(PathBuf::from("/d")));
        assert_eq!(cli.global.verbose, 2);
    }
}
