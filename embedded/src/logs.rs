//! The servers' logs: `log/nats.log`, `log/postgres.log`, one older generation each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log larger than this at start becomes `.1`. Large enough for a week of a developer's work, small enough for an editor.
const ROTATE_BYTES: u64 = 10 * 1024 * 1024;

/// Opens a log for appending. The servers inherit the open file, so their user need not reach the folder.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Moves a large log aside.
pub(crate) fn rotate(path: &Path) -> io::Result<()> {
    if path.metadata().is_ok_and(|found| found.len() > ROTATE_BYTES) {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        fs::rename(path, PathBuf::from(older))?;
    }
    Ok(())
}

/// The length of a log, to read later only what was added.
pub(crate) fn length(path: &Path) -> u64 {
    path.metadata().map(|found| found.len()).unwrap_or(0)
}

/// The last 20 lines written after `from` bytes.
pub(crate) fn last_lines(path: &Path, from: u64) -> Vec<String> {
    const LINES: usize = 20;
    const BYTES: u64 = 64 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(BYTES)).min(length)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those_written_since() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        fs::write(&log, "before\n").unwrap();
        let from = length(&log);
        let text: String = (0..30).map(|n| format!("line {n}\n")).collect();
        fs::write(&log, format!("before\n{text}")).unwrap();
        let lines = last_lines(&log, from);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines.first().map(String::as_str), Some("line 10"));
        assert!(last_lines(&folder.path().join("none"), 0).is_empty());
    }
}
