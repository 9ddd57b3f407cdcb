//! The one place that prints. Data goes to stdout, words go to stderr.
//!
//! A reader that has seen enough (`| head`) ends the command quietly; words that nobody can read are not worth failing for.

mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Format, Global};
use crate::failure::{Exit, Failure, Outcome};

/// A cell longer than this is cut: six of them fit into two lines of a terminal.
const CELL: usize = 48;

/// Where and how this command prints.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    json: bool,
    quiet: bool,
    /// How much more is wanted, 0 to 2.
    verbose: u8,
    colour: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
}

impl Console {
    pub(crate) fn new(global: &Global) -> Console {
        let stderr_is_terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Console {
            json: global.json || global.output == Some(Format::Json),
            quiet: global.quiet,
            verbose: global.verbose,
            colour: stderr_is_terminal && !dumb && !refused,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn verbose(&self) -> u8 {
        self.verbose
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// How wide the terminal is, if data goes to one.
    pub(crate) fn width(&self) -> Option<usize> {
        self.stdout_is_terminal.then(table::terminal_width).flatten()
    }

    /// A line of data.
    pub(crate) fn line(&self, text: &str) -> Outcome {
        self.raw(&format!("{text}\n"))
    }

    /// Data as it is.
    pub(crate) fn raw(&self, text: &str) -> Outcome {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(Exit::Ok),
            _ => Failure::new(Exit::Failed, format!("could not write to stdout: {error}")),
        })
    }

    /// A document: indented for eyes, one line for programs.
    pub(crate) fn json(&self, document: &impl Serialize) -> Outcome {
        let text = if self.stdout_is_terminal {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        self.line(&text.map_err(|error| Failure::because(Exit::Failed, &error))?)
    }

    /// One document of a stream of them: always one line.
    pub(crate) fn ndjson(&self, document: &impl Serialize) -> Outcome {
        let text = serde_json::to_string(document).map_err(|error| Failure::because(Exit::Failed, &error))?;
        self.line(&text)
    }

    /// Rows under headings. On a terminal fitted to its width, else one line per row for `grep` and `awk`.
    pub(crate) fn table(&self, headings: &[&str], rows: Vec<Vec<String>>) -> Outcome {
        self.table_without(&[], headings, rows)
    }

    /// The same with columns that are left out first when a terminal is too narrow for all.
    pub(crate) fn table_without(&self, first: &[&str], headings: &[&str], rows: Vec<Vec<String>>) -> Outcome {
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
        let (lines, left_out) = table::lines(headings, &rows, first, self.width());
        lines.iter().try_for_each(|line| self.line(line))?;
        if !left_out.is_empty() {
            self.say(&self.dim(&format!("no room for {}; --json shows all", left_out.join(", "))));
        }
        Ok(())
    }

    /// Names and values below each other.
    pub(crate) fn pairs(&self, pairs: &[(&str, String)]) -> Outcome {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in pairs {
            self.line(format!("{name:width$}  {value}").trim_end())?;
        }
        Ok(())
    }

    /// Words, unless `-q`.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Words that even `-q` lets through.
    pub(crate) fn complain(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// The last words of a command.
    pub(crate) fn failed(&self, failure: &Failure) -> ExitCode {
        if failure.message.is_empty() {
            return ExitCode::from(failure.exit as u8);
        }
        if self.json {
            self.complain(&failure.document().to_string());
        } else {
            self.complain(&format!("{} {}", self.red("error:"), failure.message));
            for detail in &failure.details {
                self.complain(&format!("  {detail}"));
            }
            if let Some(hint) = &failure.hint {
                self.complain(&format!("{} {hint}", self.dim("hint:")));
            }
        }
        ExitCode::from(failure.exit as u8)
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// For stderr only: stdout is data, and data has no colour.
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A bar on stderr for something with a known end; hidden when nobody watches.
    pub(crate) fn bar(&self, what: &str) -> ProgressBar {
        let bar = self.hidden_or(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// A bar that counts bytes; without a total, a sign of life that counts them.
    pub(crate) fn bytes_bar(&self, what: &str, total: Option<u64>) -> ProgressBar {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {bytes}"),
        };
        let bar = self.hidden_or(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// A sign of life on stderr for something without a known end; hidden when nobody watches.
    pub(crate) fn spinner(&self) -> ProgressBar {
        let spinner = self.hidden_or(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    fn hidden_or(&self, bar: ProgressBar) -> ProgressBar {
        if self.quiet || self.json || !self.stderr_is_terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar
    }
}

/// A value as it stands in a table: text without its quotes, lists of names as such, long documents cut.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) if !parts.is_empty() && parts.iter().all(Value::is_string) => {
            parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(other) => short(&other.to_string(), CELL),
    }
}

/// A field of a document as it stands in a table.
pub(crate) fn field(document: &Value, name: &str) -> String {
    let value = cell(document.get(name));
    if name.ends_with("_at") || name == "time" || name == "deadline" { seconds(&value) } else { value }
}

/// The named fields of every document, as rows.
pub(crate) fn rows(documents: &[Value], names: &[&str]) -> Vec<Vec<String>> {
    documents.iter().map(|document| names.iter().map(|name| field(document, name)).collect()).collect()
}

/// RFC 3339 to the second; whatever is not a time stays as it is.
pub(crate) fn seconds(time: &str) -> String {
    chrono::DateTime::parse_from_rfc3339(time)
        .map(|time| time.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        .unwrap_or_else(|_| time.to_owned())
}

/// A number of bytes for people.
pub(crate) fn bytes(number: u64) -> String {
    indicatif::BinaryBytes(number).to_string()
}

/// At most so many characters, the last of them saying that there are more.
pub(crate) fn short(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// What comes from outside may not move the cursor or break a row.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short_and_times_are_seconds() {
        let document = json!({"name": "x", "taken_at": "2026-11-20T09:45:27.123456Z", "n": 3, "none": null});
        assert_eq!(field(&document, "name"), "x");
        assert_eq!(field(&document, "taken_at"), "2026-11-20T09:45:27Z");
        assert_eq!(field(&document, "n"), "3");
        assert_eq!(field(&document, "none"), "");
        assert_eq!(field(&document, "absent"), "");
        assert_eq!(short("äöüß", 4), "äöüß");
        assert_eq!(short("äöüß!", 4), "äöü…");
        assert_eq!(one_line("a\n\x1b[31mb"), "a  [31mb");
    }
}
