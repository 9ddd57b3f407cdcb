//! `airstream backup`: copies of everything that could not be made again, and whether they are good.
//!
//! A backup is a folder: the streams in the server's archive format, the tables that the log does not lead to, and a manifest
//! that says what belongs to it. `SHA256SUMS` names every file, so that `sha256sum -c` can check it without us.

mod check;
mod create;
mod folder;
mod list;
mod manifest;
mod piece;
mod servers;
mod verify;

use std::path::PathBuf;

use super::Context;
use crate::failure::Outcome;

pub(super) use check::compare;
pub(super) use folder::Folder;
pub(super) use manifest::Stream;
pub(super) use piece::read;
pub(super) use servers::{Servers, Way};

/// What can be done with backups.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Copy the log, the queues and what Postgres alone knows, while everything runs
    #[command(
        after_long_help = "The stack goes on meanwhile. Copy the folder to another machine afterwards: beside the \
        original it does not survive the disk.\n\nExamples:\n  \
        airstream backup create\n  \
        airstream backup create --to /mnt/backups/today --json"
    )]
    Create {
        /// The folder to make [default: backups/<time> in the data directory]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        #[command(flatten)]
        servers: Servers,
    },
    /// List backups
    #[command(alias = "list", after_long_help = "Examples:\n  airstream backup ls\n  airstream backup ls /mnt/backups")]
    Ls {
        /// The folder they are in [default: backups in the data directory]
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Restore a backup into a server of its own that is thrown away, and read every commit; exit code 6 when something is wrong
    #[command(after_long_help = "Example:\n  airstream backup verify /mnt/backups/today")]
    Verify {
        /// The backup's folder
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    match verb {
        Verb::Create { to, servers } => create::run(context, to.as_deref(), servers).await,
        Verb::Ls { folder } => list::run(context, folder.as_deref()),
        Verb::Verify { path } => verify::run(context, path).await,
    }
}
