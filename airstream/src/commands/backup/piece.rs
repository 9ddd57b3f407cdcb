//! Files of a backup: written once, hashed on the way, on the disk before anybody counts on them.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::manifest::Piece;

/// Bytes read at once.
const READ: usize = 128 * 1024;

/// What went into a file.
pub(super) struct Written {
    pub(super) piece: Piece,
    /// Line ends: rows, when it is a table.
    pub(super) lines: u64,
}

/// Writes everything that comes into a new file that only its owner can read. `progress` hears how many bytes there are so far.
pub(super) async fn write<E>(
    folder: &Path,
    file: String,
    mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    progress: impl Fn(u64),
) -> anyhow::Result<Written>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (mut hash, mut bytes, mut lines) = (Sha256::new(), 0, 0);
    let mut out =
        BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(&file)).await?);
    while let Some(piece) = pieces.try_next().await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        out.write_all(&piece).await?;
        progress(bytes);
    }
    out.flush().await?;
    out.get_ref().sync_all().await?;
    Ok(Written { piece: Piece { file, bytes, sha256: hex(hash) }, lines })
}

/// A file's bytes.
pub(crate) fn read(path: &Path) -> BoxStream<'static, io::Result<Bytes>> {
    let path = path.to_owned();
    let opened = async move { File::open(path).await };
    let bytes = |file: File| {
        futures::stream::try_unfold(file, |mut file| async move {
            let mut buffer = Vec::with_capacity(READ);
            let read = (&mut file).take(READ as u64).read_to_end(&mut buffer).await?;
            Ok((read > 0).then_some((Bytes::from(buffer), file)))
        })
    };
    futures::stream::once(opened).map_ok(bytes).try_flatten().boxed()
}

/// What is wrong with a file; `None` when it is as it was written.
pub(super) async fn fault(folder: &Path, piece: &Piece, progress: impl Fn(u64)) -> Option<String> {
    let (mut hash, mut bytes, mut pieces) = (Sha256::new(), 0, read(&folder.join(&piece.file)));
    loop {
        match pieces.next().await {
            None => break,
            Some(Ok(read)) => {
                hash.update(&read);
                bytes += read.len() as u64;
                progress(bytes);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Some("it is missing".to_owned()),
            Some(Err(error)) => return Some(format!("it cannot be read: {error}")),
        }
    }
    if bytes != piece.bytes {
        return Some(format!("it has {bytes} bytes, {} were written", piece.bytes));
    }
    (hex(hash) != piece.sha256).then(|| "its content is not what was written (SHA-256)".to_owned())
}

/// The hash of something small.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_change_of_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let pieces = [b"one\n".as_slice(), b"two\n"].map(|piece| io::Result::Ok(Bytes::from_static(piece)));
        let written = write(folder.path(), "x".into(), futures::stream::iter(pieces), |_| {}).await.unwrap();
        assert_eq!((written.lines, written.piece.bytes), (2, 8));
        assert_eq!(written.piece.sha256, sha256(b"one\ntwo\n"));
        let path = folder.path().join("x");
        let fault = async || fault(folder.path(), &written.piece, |_| {}).await.unwrap_or_default();
        assert_eq!(fault().await, "");
        for (content, said) in [("one\ntwO\n", "SHA-256"), ("one\n", "4 bytes, 8 were written")] {
            std::fs::write(&path, content).unwrap();
            assert!(fault().await.contains(said), "{content}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fault().await, "it is missing");
    }
}
