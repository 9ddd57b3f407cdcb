//! `airstream logs`: the last lines of the servers' files and ours, and what is added to them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::paths;

/// How much of a file's end is looked through for its last lines.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// The flags of `logs`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    airstream logs            the last lines of all\n  \
    airstream logs nats -f    follow one\n  \
    airstream logs airstream -n 500")]
pub(crate) struct Arguments {
    /// Whose log [default: all]
    #[arg(value_enum)]
    whose: Option<Whose>,
    /// Show what is added as well
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
    lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whose {
    Airstream,
    Nats,
    Postgres,
}

impl Whose {
    /// The files' names; a cluster has one per server, and a folder is either's.
    fn names(self, folder: &Path) -> Vec<&'static str> {
        match self {
            Whose::Airstream => vec!["airstream"],
            Whose::Nats => {
                let peers = ["nats-1", "nats-2", "nats-3"].into_iter();
                let found: Vec<_> = peers.filter(|name| folder.join(format!("{name}.log")).exists()).collect();
                if found.is_empty() { vec!["nats"] } else { found }
            }
            Whose::Postgres => vec!["postgres"],
        }
    }
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let folder = paths::log_dir(&context.data_dir()?);
    let wanted = arguments.whose.map_or_else(|| vec![Whose::Airstream, Whose::Nats, Whose::Postgres], |one| vec![one]);
    let names: Vec<&str> = wanted.into_iter().flat_map(|whose| whose.names(&folder)).collect();
    let prefixed = names.len() > 1;
    let mut followed = Vec::new();
    for name in names {
        let mut log = Followed::new(name, &folder);
        let lines = log.last(arguments.lines).map_err(|error| unreadable(&log.path, &error))?;
        print(context, log.name, prefixed, lines.as_deref().unwrap_or_default())?;
        followed.push((log, lines.is_some()));
    }
    if !arguments.follow && !followed.iter().any(|(_, found)| *found) {
        return Err(Failure::new(Exit::NotFound, format!("there are no logs in {}", folder.display()))
            .hint("the first `airstream up` makes them; --data-dir names another folder"));
    }
    if !arguments.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (log, _) in &mut followed {
            let lines = log.added().map_err(|error| unreadable(&log.path, &error))?;
            print(context, log.name, prefixed, &lines)?;
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let hint = "the logs belong to the user who started the stack";
    Failure::new(Exit::Failed, format!("could not read {}: {error}", path.display())).hint(hint)
}

fn print(context: &Context<'_>, name: &str, prefixed: bool, lines: &[String]) -> Outcome {
    for line in lines {
        if context.console.is_json() {
            context.console.ndjson(&json!({"log": name, "line": line}))?;
        } else if prefixed {
            context.console.line(&format!("{name:9} | {line}"))?;
        } else {
            context.console.line(line)?;
        }
    }
    Ok(())
}

/// A file that others write to, replace and cut.
struct Followed {
    name: &'static str,
    path: PathBuf,
    /// Which file it was: a start moves a large log aside.
    inode: u64,
    read: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Followed {
    fn new(name: &'static str, folder: &Path) -> Followed {
        Followed { name, path: folder.join(format!("{name}.log")), inode: 0, read: 0, rest: Vec::new() }
    }

    /// The last lines that are complete; `None` if there is no such file.
    fn last(&mut self, count: usize) -> io::Result<Option<Vec<String>>> {
        let length = match self.path.metadata() {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        self.inode = self.path.metadata()?.ino();
        self.read = length.saturating_sub(TAIL_BYTES);
        let lines = self.added()?;
        Ok(Some(lines.into_iter().rev().take(count).rev().collect()))
    }

    /// The lines completed since the last look.
    fn added(&mut self) -> io::Result<Vec<String>> {
        let found = match self.path.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if found.ino() != self.inode || found.len() < self.read {
            (self.inode, self.read, self.rest) = (found.ino(), 0, Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = std::mem::take(&mut self.rest);
        self.read += file.take(TAIL_BYTES).read_to_end(&mut bytes)? as u64;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(complete);
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_is_followed_across_half_lines_and_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nats.log");
        let mut log = Followed::new("nats", folder.path());
        assert_eq!(log.last(2).unwrap(), None);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1\n2\n3\nhal").unwrap();
        assert_eq!(log.last(2).unwrap().unwrap(), ["2", "3"]);
        file.write_all(b"f\n4\n").unwrap();
        assert_eq!(log.added().unwrap(), ["half", "4"]);
        assert!(log.added().unwrap().is_empty());
        std::fs::rename(&path, folder.path().join("nats.log.1")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(log.added().unwrap(), ["new"]);
    }
}
