//! `COPY … FROM STDIN`: the fastest way of many rows into a table.

use kernel::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;

/// Sent as soon as so much has gathered, so that Postgres stores while we are still writing.
const CHUNK: usize = 64 * 1024;

/// One row after the other in COPY's text format.
#[derive(Default)]
pub(crate) struct Rows {
    text: Vec<u8>,
    within: bool,
}

impl Rows {
    fn column(&mut self) {
        if self.within {
            self.text.push(b'\t');
        }
        self.within = true;
    }

    fn escaped(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                b'\\' => self.text.extend_from_slice(b"\\\\"),
                b'\n' => self.text.extend_from_slice(b"\\n"),
                b'\r' => self.text.extend_from_slice(b"\\r"),
                b'\t' => self.text.extend_from_slice(b"\\t"),
                byte => self.text.push(byte),
            }
        }
    }

    /// A text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.column();
        self.escaped(text);
        self
    }

    /// A text, or null.
    pub(crate) fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// Null.
    pub(crate) fn null(&mut self) -> &mut Self {
        self.column();
        self.text.extend_from_slice(b"\\N");
        self
    }

    /// A number.
    pub(crate) fn number(&mut self, number: impl Into<i64>) -> &mut Self {
        self.column();
        self.text.extend_from_slice(number.into().to_string().as_bytes());
        self
    }

    /// A time, to the microsecond as everywhere in Postgres.
    pub(crate) fn time(&mut self, time: Timestamp) -> &mut Self {
        self.column();
        let text = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        self.text.extend_from_slice(text.as_bytes());
        self
    }

    /// A time, or null.
    pub(crate) fn maybe_time(&mut self, time: Option<Timestamp>) -> &mut Self {
        match time {
            Some(time) => self.time(time),
            None => self.null(),
        }
    }

    /// A document, or null.
    pub(crate) fn maybe_json(&mut self, value: Option<&Value>) -> &mut Self {
        match value {
            Some(value) => self.text(&value.to_string()),
            None => self.null(),
        }
    }

    /// An array of texts.
    pub(crate) fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> &mut Self {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let all: Vec<String> = texts.map(quoted).collect();
        self.text(&format!("{{{}}}", all.join(",")))
    }

    fn end(&mut self) {
        self.text.push(b'\n');
        self.within = false;
    }
}

/// Copies items into a table, one row each. `into` is the table with its columns.
pub(crate) async fn copy<T>(
    connection: &mut PgConnection,
    into: &str,
    items: impl IntoIterator<Item = T>,
    row: impl Fn(&T, &mut Rows),
) -> Result<(), sqlx::Error> {
    let mut copying = connection.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
    let mut rows = Rows::default();
    for item in items {
        row(&item, &mut rows);
        rows.end();
        if rows.text.len() >= CHUNK {
            copying.send(rows.text.as_slice()).await?;
            rows.text.clear();
        }
    }
    if !rows.text.is_empty() {
        copying.send(rows.text.as_slice()).await?;
    }
    copying.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_treats_as_special_is_escaped() {
        let mut rows = Rows::default();
        let time = "2026-11-20T09:45:27.123456Z".parse().expect("a time");
        rows.text("a\tb\\c\nd\re").maybe_text(None).number(7).time(time).maybe_json(Some(&serde_json::json!("x\ny")));
        rows.texts(["plain", "a,b", "q\"\\"].into_iter()).maybe_text(Some("\\N")).end();
        let expected = concat!(
            "a\\tb\\\\c\\nd\\re\t\\N\t7\t2026-11-20T09:45:27.123456Z\t\"x\\\\ny\"\t",
            "{\"plain\",\"a,b\",\"q\\\\\"\\\\\\\\\"}\t\\\\N\n",
        );
        assert_eq!(String::from_utf8(rows.text).expect("text"), expected);
    }
}
