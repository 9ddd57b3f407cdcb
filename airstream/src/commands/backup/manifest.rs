//! What a backup says about itself.

use std::path::{Component, Path};

use kernel::{Position, Timestamp};
use nats::backup::Description;
use serde::{Deserialize, Serialize};

/// The format of the folder. Raised when an older program could misunderstand a newer backup.
pub(crate) const FORMAT: u32 = 1;

/// `manifest.json`. Scripts read it: fields may be added, none may change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) took_ms: u64,
    pub(crate) versions: Versions,
    pub(crate) log: Log,
    /// Migrations of the database, oldest first.
    pub(crate) migrations: Vec<String>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) tables: Vec<Table>,
}

/// What made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) airstream: String,
    pub(crate) nats: String,
    pub(crate) postgres: String,
}

/// Which log, and how much of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Checkpoints name it.
    pub(crate) identity: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How far the farthest consumer was. Never beyond the end: the tables are copied first.
    pub(crate) handled: u64,
}

/// One stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stream {
    #[serde(flatten)]
    pub(crate) description: Description,
    #[serde(flatten)]
    pub(crate) piece: Piece,
}

/// One table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) table: String,
    pub(crate) rows: u64,
    #[serde(flatten)]
    pub(crate) piece: Piece,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Manifest {
    /// Every file besides the manifest.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.streams.iter().map(|stream| &stream.piece).chain(self.tables.iter().map(|table| &table.piece))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.bytes).sum()
    }

    /// The newest position of the log.
    pub(crate) fn position(&self) -> Position {
        Position::at(self.log.last)
    }

    /// Why this program cannot make sense of it.
    pub(crate) fn misfit(&self) -> Option<String> {
        let newer = format!("it was made by a newer airstream ({}): use that one", self.versions.airstream);
        if self.format != FORMAT {
            return Some(newer);
        }
        let known: Vec<String> =
            projections::migrations().iter().map(|(number, name, _)| format!("{number}_{name}")).collect();
        if self.migrations.iter().any(|migration| !known.contains(migration)) {
            return Some(newer);
        }
        let plain = |file: &str| {
            let mut parts = Path::new(file).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        if let Some(piece) = self.pieces().find(|piece| !plain(&piece.file)) {
            return Some(format!("{:?} is not the name of a file in it", piece.file));
        }
        if let Some(table) = self.tables.iter().find(|table| projections::backup::Table::named(&table.table).is_none())
        {
            return Some(format!("its table `{}` is unknown here", table.table));
        }
        let has = |name: &str| self.streams.iter().any(|stream| stream.description.stream == name);
        nats::backup::STREAMS.into_iter().find(|name| !has(name)).map(|name| format!("it has no stream {name}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        let piece = |file: &str| Piece { file: file.to_owned(), bytes: 3, sha256: "00".to_owned() };
        let stream = |name: &str| Stream {
            description: Description { stream: name.to_owned(), config: json!({}), state: json!({"last_seq": 42}) },
            piece: piece(&format!("{name}.snapshot")),
        };
        Manifest {
            format: FORMAT,
            created_at: Timestamp::UNIX_EPOCH,
            took_ms: 1,
            versions: Versions { airstream: "9.9.9".into(), nats: "2.15.1".into(), postgres: "15".into() },
            log: Log { identity: "log_1".into(), first: 1, last: 42, handled: 40 },
            migrations: vec!["0001_machinery".into()],
            streams: nats::backup::STREAMS.map(stream).into(),
            tables: vec![Table { table: "parked".into(), rows: 0, piece: piece("parked.copy") }],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_is_flat_for_scripts() {
        let written = serde_json::to_value(manifest()).unwrap();
        assert_eq!(written.pointer("/streams/2/stream"), Some(&json!("EVENTS")));
        assert_eq!(written.pointer("/streams/2/file"), Some(&json!("EVENTS.snapshot")));
        assert_eq!(written.pointer("/tables/0/sha256"), Some(&json!("00")));
        let read: Manifest = serde_json::from_value(written).unwrap();
        assert_eq!((read.bytes(), read.streams[2].description.last(), read.misfit()), (12, 42, None));
    }

    #[test]
    fn what_this_program_does_not_understand_is_refused() {
        let says = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.misfit().unwrap_or_default()
        };
        assert!(says(|manifest| manifest.format = 2).contains("newer airstream (9.9.9)"));
        assert!(says(|manifest| manifest.migrations.push("9999_later".into())).contains("newer"));
        assert!(says(|manifest| drop(manifest.streams.pop())).contains("no stream EVENTS"));
        assert!(says(|manifest| manifest.tables[0].table = "x".into()).contains("unknown here"));
        for file in ["../x", "/etc/passwd", "", "a/b"] {
            let mut manifest = manifest();
            manifest.tables[0].piece.file = file.to_owned();
            assert!(manifest.misfit().is_some_and(|said| said.contains("not the name of a file")), "{file}");
        }
    }
}
