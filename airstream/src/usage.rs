//! The command line, read or refused: in clap's words, or with `--json` as a problem document.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::cli::{Cli, Global};
use crate::failure::Failure;
use crate::output::Console;

/// What was asked for; or everything has been said, and this is how to end.
pub(crate) fn read() -> Result<Cli, ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    parse(&words).map_err(|error| {
        if error.use_stderr() && wants_json(&words) {
            return Console::new(&Global { json: true, ..Global::default() }).failed(&failure(&error));
        }
        // Whoever does not listen any more needs no help.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(words)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    // In the environment it is there for other commands, too.
    if cli.command.is_about_this_machine() && matches.value_source("url") == Some(ValueSource::CommandLine) {
        let name = matches.subcommand_name().unwrap_or_default();
        let message = format!("--url cannot be used with `{name}`, which is about this machine");
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    Ok(cli)
}

/// Guessed from the words: what they mean together is what could not be found out.
fn wants_json(words: &[OsString]) -> bool {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--").collect();
    words.iter().any(|word| ["--json", "-ojson", "-o=json", "--output=json"].contains(word))
        || words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
}

/// Clap's text in parts: what is wrong, then advice and usage, then where there is help.
fn failure(error: &clap::Error) -> Failure {
    let hint = "`airstream help` lists the commands, --help behind a command its flags";
    if matches!(error.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        return Failure::usage("a command is missing").hint(hint);
    }
    let text = error.render().to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what: Vec<&str> = what.trim_start_matches("error: ").lines().map(str::trim).collect();
    let details =
        rest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    Failure::usage(what.join(" ")).details(details.map(str::to_owned).collect()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn refused(line: &str) -> Failure {
        failure(&read(line).unwrap_err())
    }

    #[test]
    fn a_refusal_is_a_sentence_and_details() {
        let failure = refused("airstream fly --json");
        assert_eq!(failure.message, "unrecognized subcommand 'fly'");
        assert!(failure.details.concat().contains("Usage: airstream"), "{:?}", failure.details);
        let failure = refused("airstream events show --json");
        assert_eq!(failure.message, "the following required arguments were not provided: <ID>");
        for line in ["airstream --json", "airstream workflows --json", "airstream --json workflows"] {
            assert_eq!(refused(line).message, "a command is missing", "{line}");
        }
    }

    #[test]
    fn another_server_has_no_local_stack() {
        for verb in ["up", "down", "status", "logs", "serve", "doctor", "migrate"] {
            let failure = refused(&format!("airstream --url http://h:1 {verb}"));
            assert!(failure.message.contains(&format!("with `{verb}`")), "{}", failure.message);
        }
        assert!(refused("airstream down --url http://h:1").message.contains("--url"));
        assert!(read("airstream events ls --url http://h:1").is_ok());
        assert!(read("airstream down").is_ok());
    }

    #[test]
    fn help_is_a_command_too() {
        for line in ["airstream help", "airstream help workflows runs", "airstream workflows help", "airstream --help"]
        {
            assert_eq!(read(line).unwrap_err().kind(), ErrorKind::DisplayHelp, "{line}");
        }
    }

    #[test]
    fn json_is_wanted_before_anything_is_understood() {
        let wants = |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["airstream fly --json", "airstream -o json", "airstream --output=json x", "airstream x -ojson"] {
            assert!(wants(line), "{line}");
        }
        for line in ["airstream fly", "airstream x -- --json", "airstream -o table", "airstream json"] {
            assert!(!wants(line), "{line}");
        }
    }
}
