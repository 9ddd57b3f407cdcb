//! What `up` says while it starts: a line per step, then a page of addresses. All of it on stderr.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use embedded::{Child, Progress};
use indicatif::ProgressBar;

use super::invocation;
use crate::config::without_password;
use crate::output::Console;
use crate::platform::Step;
use crate::state_file::Running;

/// Prints from several threads: the servers start at once.
#[derive(Clone)]
pub(crate) struct Banner {
    console: Console,
    spinner: ProgressBar,
    /// What each server is busy with.
    busy: Arc<Mutex<BTreeMap<Child, String>>>,
}

impl Banner {
    pub(crate) fn new(console: Console) -> Banner {
        let spinner = console.spinner();
        Banner { console, spinner, busy: Arc::default() }
    }

    pub(crate) fn title(&self) {
        let console = &self.console;
        self.say(&format!("{} {}\n", console.bold("airstream"), console.dim(env!("CARGO_PKG_VERSION"))));
        self.spinner.set_message("looking for the servers");
    }

    /// No more steps.
    pub(crate) fn done(&self) {
        self.spinner.finish_and_clear();
    }

    pub(crate) fn say(&self, text: &str) {
        self.spinner.suspend(|| self.console.say(text));
    }

    pub(crate) fn notice(&self, text: &str) {
        self.line(&self.console.yellow("!"), "note", text);
    }

    fn line(&self, mark: &str, name: &str, text: &str) {
        self.say(&format!("  {mark} {name:12} {text}"));
    }

    fn tick(&self, name: &str, text: &str) {
        self.line(&self.console.green("✓"), name, text);
    }

    fn busy(&self, what: Child, doing: Option<String>) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match doing {
            Some(doing) => drop(busy.insert(what, doing)),
            None => drop(busy.remove(&what)),
        }
        let doing: Vec<String> = busy.values().cloned().collect();
        self.spinner.set_message(if doing.is_empty() { "starting the platform".to_owned() } else { doing.join(", ") });
    }

    pub(crate) fn progress(&self, progress: &Progress) {
        let console = &self.console;
        match progress {
            Progress::Chose { what, version, path, source } => {
                let version = version.as_deref().map(|version| format!("{version} ")).unwrap_or_default();
                let path = path.as_ref().map(|path| format!("  {}", console.dim(&path.display().to_string())));
                self.tick(&what.to_string(), &format!("{version}{source}{}", path.unwrap_or_default()));
            }
            Progress::Fetching { what, package } => {
                self.line(&console.dim("…"), &what.to_string(), &format!("fetching {package}"));
                self.busy(*what, Some(format!("fetching {package}")));
            }
            Progress::Initialising { what } => self.busy(*what, Some(format!("creating the cluster of {what}"))),
            Progress::Starting { what } => self.busy(*what, Some(format!("starting {what}"))),
            Progress::Ready { what, address, took } => {
                self.busy(*what, None);
                if let Child::NatsPeer(_) = what {
                    self.tick(&what.to_string(), &format!("{address} is one of the cluster"));
                }
                if console.verbose() > 0 {
                    self.tick(&what.to_string(), &format!("answers after {} ms", took.as_millis()));
                }
            }
            Progress::Notice { text, .. } => self.notice(text),
            // Steps that are not known yet need no words.
            _ => {}
        }
    }

    pub(crate) fn step(&self, step: &Step) {
        match step {
            Step::Migrated { applied: 0, total } => self.tick("migrations", &format!("all {total} applied already")),
            Step::Migrated { applied, total } => self.tick("migrations", &format!("{applied} applied, {total} in all")),
            Step::Topology { notices } if notices.is_empty() => self.tick("streams", "as they should be"),
            Step::Topology { notices } => notices.iter().for_each(|notice| self.notice(notice)),
            Step::Roles(roles) => self.tick("roles", &roles.join(", ")),
            Step::Listening { http } => self.tick("HTTP", &format!("listens on {http}")),
        }
    }

    /// The page that stays on the screen. Passwords are left out: `status` shows them to whoever asks.
    pub(crate) fn ready(&self, running: &Running, took: Duration, detached: bool) {
        self.done();
        self.tick("ready", &format!("in {:.2} s", took.as_secs_f64()));
        if !detached {
            return self.addresses(running, Some("Ctrl-C"));
        }
        // What we say in the background is kept in our log, and a log has no secrets.
        let token = format!("***  `{} status` shows it", invocation(&running.data_dir));
        self.addresses(&Running { token, ..running.clone() }, None);
    }

    /// Where everything is.
    pub(crate) fn addresses(&self, running: &Running, also_stops: Option<&str>) {
        let console = &self.console;
        let airstream = invocation(&running.data_dir);
        let stop = match also_stops {
            Some(also) => format!("{also}, or `{airstream} down`"),
            None => format!("{airstream} down"),
        };
        let lines = [
            ("HTTP", running.http.clone()),
            ("NATS", format!("{}  user {}", without_password(&running.nats.url), running.nats.user)),
            ("Postgres", without_password(&running.postgres)),
            ("Mailbox", running.mailbox.clone().unwrap_or_default()),
            ("Token", running.token.clone()),
            ("Tenant", format!("{}  principal {}", running.tenant, running.principal)),
            ("Data", running.data_dir.display().to_string()),
            ("Logs", running.logs.display().to_string()),
            ("", String::new()),
            ("Passwords", format!("{airstream} status --json")),
            ("Try", format!("{airstream} events tail --since-start")),
            ("Stop", stop),
        ];
        self.say("");
        let lines = lines.into_iter().filter(|(name, value)| name.is_empty() || !value.is_empty());
        for (name, value) in lines {
            self.say(format!("  {}  {value}", console.bold(&format!("{name:9}"))).trim_end());
        }
        self.say("");
    }
}
