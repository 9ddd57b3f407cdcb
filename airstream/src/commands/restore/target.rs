//! Where a backup goes: servers of somebody else's, or private ones that run for as long as it takes.

use embedded::{Progress, Stack, StartError};
use nats::Credentials;

use crate::commands::backup::Way;
use crate::config::Config;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::Console;
use crate::{paths, up};

/// Servers that answer.
pub(super) struct Target {
    pub(super) way: Way,
    /// Those that were started for this.
    stack: Option<Stack>,
}

impl Target {
    /// Connects to the configured servers, or starts private ones; `None` when a dry run would have to make a new data directory.
    ///
    /// A private NATS does not wait for the disk after each message now: that would take a hundred times as long, and until
    /// [`Target::settle`] the restore can begin anew.
    pub(super) async fn open(console: &Console, config: &Config, dry_run: bool) -> Outcome<Option<Target>> {
        let (nats, postgres) = (&config.nats, &config.postgres);
        if !nats.url.is_empty() && !postgres.url.is_empty() {
            let credentials = Credentials { user: nats.user.clone(), password: nats.password.clone() };
            let (nats_url, postgres_url) = (nats.url.clone(), postgres.url.clone());
            return Ok(Some(Target { way: Way { nats_url, credentials, postgres_url }, stack: None }));
        }
        if dry_run && !paths::data_dir(config)?.join("state.json").exists() {
            return Ok(None);
        }
        start(console, config, false).await.map(Some)
    }

    /// Has the disk keep everything, and the servers read it back as they will from now on.
    pub(super) async fn settle(self, console: &Console, config: &Config) -> Outcome<Target> {
        let Some(stack) = self.stack else { return Ok(self) };
        stack.stop_and_sync().await?;
        start(console, config, true).await
    }

    pub(super) async fn close(self) {
        if let Some(stack) = self.stack {
            stack.stop().await;
        }
    }
}

async fn start(console: &Console, config: &Config, settled: bool) -> Outcome<Target> {
    let banner = up::Banner::new(console.clone());
    let listener = banner.clone();
    let options = embedded::Options { nats_sync_always: settled, ..up::stack_options(config, false)? };
    let started = embedded::start(options, move |progress| {
        // Which servers was said the first time, and that they do not wait for the disk is on purpose.
        if !settled && !matches!(progress, Progress::Notice { .. }) {
            listener.progress(progress);
        }
    });
    let started = started.await;
    banner.done();
    let stack = started.map_err(|error| {
        let running = matches!(error, StartError::AlreadyRunning { .. });
        let failure = Failure::from(error);
        if running {
            let hint = "a backup is restored into an empty stack that does not run: name a new folder with --data-dir";
            return Failure { exit: Exit::Conflict, ..failure.hint(hint) };
        }
        failure
    })?;
    let addresses = up::addresses(config, &stack);
    let credentials = Credentials { user: addresses.nats_user, password: addresses.nats_password };
    let way = Way { nats_url: addresses.nats_url, credentials, postgres_url: addresses.postgres_url };
    Ok(Target { way, stack: Some(stack) })
}
