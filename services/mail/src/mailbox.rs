//! A folder that takes the place of a mail server on a development stack: what would have been sent lies there, one file per
//! mail, readable by any mail program.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use projections::mail::Claimed;
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use crate::message::{Form, compose};
use crate::{Carrier, Sender, Unsent};

/// Mails that are listed, the newest ones.
const MOST_LISTED: usize = 200;
/// Longest part of a mail's id in its file's name, in bytes.
const MOST_OF_ID: usize = 80;
/// The ending of a mail's file.
const ENDING: &str = ".eml";

/// The folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailbox {
    folder: PathBuf,
    sender: Sender,
}

/// A mail that lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    /// Its file.
    pub(crate) name: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) date: String,
    pub(crate) text: String,
}

impl Mailbox {
    /// In this folder, which is made with the first mail.
    #[must_use]
    pub fn new(folder: PathBuf, sender: Sender) -> Self {
        Self { folder, sender }
    }

    async fn write(&self, mail: &Claimed, message: &[u8]) -> io::Result<()> {
        // What lies there lets its reader into accounts.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).await?;
        let name = file_name(mail);
        let unfinished = self.folder.join(format!(".{name}"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).await?;
        file.write_all(message).await?;
        file.flush().await?;
        fs::rename(unfinished, self.folder.join(name)).await
    }

    /// The newest mails, the newest first.
    pub(crate) async fn letters(&self) -> io::Result<Vec<Letter>> {
        let mut names = Vec::new();
        let mut entries = match fs::read_dir(&self.folder).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        while let Some(entry) = entries.next_entry().await? {
            names.extend(entry.file_name().into_string().ok().filter(|name| is_name(name)));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.truncate(MOST_LISTED);
        let mut letters = Vec::with_capacity(names.len());
        for name in names {
            letters.extend(self.letter(&name).await?);
        }
        Ok(letters)
    }

    /// One of them.
    pub(crate) async fn letter(&self, name: &str) -> io::Result<Option<Letter>> {
        if !is_name(name) {
            return Ok(None);
        }
        match fs::read_to_string(self.folder.join(name)).await {
            Ok(message) => Ok(Some(read(name, &message))),
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[async_trait]
impl Carrier for Mailbox {
    async fn carry(&self, mail: &Claimed) -> Result<(), Unsent> {
        let message = compose(&self.sender, mail, Form::ForPeople).map_err(Unsent::Never)?.formatted();
        let failed = |error| Unsent::Away(format!("{} cannot be written to: {error}", self.folder.display()));
        self.write(mail, &message).await.map_err(failed)
    }
}

/// Sorts by time; the same mail has the same name each time.
fn file_name(mail: &Claimed) -> String {
    let id = mail.id.chars().map(|c| if is_plain(c) { c } else { '-' });
    format!("{}-{}{ENDING}", mail.created_at.format("%Y%m%dT%H%M%S%.3fZ"), id.take(MOST_OF_ID).collect::<String>())
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c)
}

/// Whether it can be a file of ours: no path, and not one that is still being written.
fn is_name(name: &str) -> bool {
    name.ends_with(ENDING) && name.chars().all(is_plain) && !name.starts_with('.')
}

/// Reads what [`compose`] wrote, and no other dialect.
fn read(name: &str, message: &str) -> Letter {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let head = head.replace("\r\n ", " ");
    let header = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default().to_owned()
    };
    let text = match header("Content-Transfer-Encoding").as_str() {
        "base64" => base64_text(&body.replace("\r\n", "")).unwrap_or_else(|| body.to_owned()),
        _ => body.to_owned(),
    };
    Letter {
        name: name.to_owned(),
        to: header("To"),
        subject: words(&header("Subject")),
        date: header("Date"),
        text: text.trim_end().replace("\r\n", "\n"),
    }
}

fn base64_text(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// Reads encoded words (RFC 2047) as they are written here: UTF-8 in base64, blanks between two of them without meaning.
fn words(header: &str) -> String {
    let mut said = String::new();
    let mut after_encoded = false;
    for (index, word) in header.split(' ').enumerate() {
        let encoded = word.strip_prefix("=?utf-8?b?").and_then(|word| word.strip_suffix("?="));
        let decoded = encoded.and_then(base64_text);
        if index > 0 && !(after_encoded && decoded.is_some()) {
            said.push(' ');
        }
        after_encoded = decoded.is_some();
        said.push_str(decoded.as_deref().unwrap_or(word));
    }
    said
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::message::tests::{mail, sender};

    #[tokio::test]
    async fn what_was_sent_can_be_read_again_and_lies_there_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mailbox = Mailbox::new(folder.path().join("mailbox"), sender());
        assert_eq!(mailbox.letters().await.expect("none"), []);
        let long = "Ein Wort ".repeat(30);
        let letters = [
            mail("Confirm your address", "Hello,\n\nhttps://example.org/?token=a=b"),
            mail(&format!("Grüße aus Köln – {long}"), &"ü".repeat(2_000)),
        ];
        for (n, letter) in letters.iter().enumerate() {
            let letter = Claimed {
                id: format!("../{n}"),
                created_at: letter.created_at + chrono::Duration::seconds(i64::try_from(n).expect("small")),
                ..letter.clone()
            };
            mailbox.carry(&letter).await.expect("written");
            mailbox.carry(&letter).await.expect("written over");
        }
        let found = mailbox.letters().await.expect("two");
        let names: Vec<&str> = found.iter().map(|letter| letter.name.as_str()).collect();
        assert_eq!(names, ["20261120T183006.250Z-..-1.eml", "20261120T183005.250Z-..-0.eml"]);
        for (letter, sent) in found.iter().rev().zip(&letters) {
            assert_eq!(
                (&letter.subject, &letter.text, letter.to.as_str()),
                (&sent.subject, &sent.text, "ann@example.org")
            );
        }
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(mailbox.folder()), 0o700);
        assert_eq!(mode(&mailbox.folder().join(names[0])), 0o600);
    }

    #[tokio::test]
    async fn nothing_outside_of_the_folder_is_a_letter() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret.eml"), "secret").expect("written");
        let mailbox = Mailbox::new(folder.path().join("mailbox"), sender());
        std::fs::create_dir(mailbox.folder()).expect("made");
        std::fs::write(mailbox.folder().join(".half.eml"), "half").expect("written");
        for name in ["../secret.eml", "/etc/passwd", ".half.eml", "..", "", "a\0.eml"] {
            assert_eq!(mailbox.letter(name).await.expect("an answer"), None, "{name}");
        }
    }
}
