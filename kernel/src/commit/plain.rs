//! A commit read the short way: its bytes stand exactly as [`Draft::to_bytes`](super::Draft::to_bytes) puts them, every
//! attribute in its place and no text with an escape in it. Nearly all commits do, and whoever reads a log reads millions.
//! What deviates by a single byte is left to the reader of any JSON; both come to the same envelopes.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Envelope;

/// All envelopes of a commit; `None` says nothing but that this way does not lead there.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Envelope<'_>>> {
    let mut left = Left(std::str::from_utf8(bytes).ok()?.strip_prefix('[')?);
    let mut envelopes = Vec::with_capacity(1);
    loop {
        envelopes.push(left.envelope()?);
        match left.0 {
            "]" => return Some(envelopes),
            more => left.0 = more.strip_prefix(',')?,
        }
    }
}

/// What has not been read yet.
struct Left<'a>(&'a str);

impl<'a> Left<'a> {
    fn envelope(&mut self) -> Option<Envelope<'a>> {
        Some(Envelope {
            specversion: self.text("{\"specversion\":\"")?,
            id: self.text(",\"id\":\"")?,
            source: self.text(",\"source\":\"")?,
            type_name: self.text(",\"type\":\"")?,
            subject: self.text(",\"subject\":\"")?,
            time: self.text(",\"time\":\"")?.parse().ok()?,
            datacontenttype: self.text(",\"datacontenttype\":\"")?,
            dataschema: self.text(",\"dataschema\":\"")?,
            tenantid: self.text(",\"tenantid\":\"")?,
            streamversion: self.number(",\"streamversion\":")?,
            commitid: self.text(",\"commitid\":\"")?,
            correlationid: self.text(",\"correlationid\":\"")?,
            causationid: self.text(",\"causationid\":\"")?,
            actor: self.text(",\"actor\":\"")?,
            command: self.text(",\"command\":\"")?,
            commandhash: self.text(",\"commandhash\":\"")?,
            traceparent: match self.0.starts_with(",\"traceparent\":\"") {
                true => Some(self.text(",\"traceparent\":\"")?),
                false => None,
            },
            data: self.data()?,
        })
    }

    fn skip(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// A text up to its closing quote. An escape would have to be undone, and a control character refused.
    fn text(&mut self, before: &str) -> Option<Cow<'a, str>> {
        self.skip(before)?;
        let end = self.0.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        let (text, left) = self.0.split_at_checked(end)?;
        self.0 = left.strip_prefix('"')?;
        Some(Cow::Borrowed(text))
    }

    fn number(&mut self, before: &str) -> Option<u64> {
        self.skip(before)?;
        let end = self.0.bytes().position(|byte| !byte.is_ascii_digit())?;
        let (digits, left) = self.0.split_at_checked(end)?;
        // JSON has no leading zeros; and a point or an exponent is met by the attribute that should follow.
        let sound = !digits.starts_with('0') || digits == "0";
        self.0 = left;
        digits.parse().ok().filter(|_| sound)
    }

    fn data(&mut self) -> Option<&'a RawValue> {
        self.skip(",\"data\":")?;
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&'a RawValue>();
        let data = values.next()?.ok()?;
        self.0 = self.0.get(values.byte_offset()..)?.strip_prefix('}')?;
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommandId, Draft, Fingerprint, NewEvent, PrincipalId, StreamName, Timestamp};

    fn commit(traceparent: Option<&str>, data: &[&str]) -> Vec<u8> {
        let events = data.iter().map(|data| {
            let data = RawValue::from_string((*data).to_owned()).expect("JSON");
            NewEvent { type_name: "light.switched", schema_version: 3, data }
        });
        let draft = Draft {
            stream: StreamName::new("dev", "light", "kitchen").expect("a valid name"),
            id: CommandId::new("c1").expect("a valid id"),
            command: "switch".into(),
            fingerprint: Fingerprint::of("switch", b"{}"),
            version_before: 9,
            at: "2026-11-20T09:45:27.123456Z".parse().expect("a time"),
            actor: PrincipalId::new("ann").expect("a valid name"),
            correlation: "k".into(),
            causation: "c1".into(),
            traceparent: traceparent.map(Into::into),
            events: events.collect(),
        };
        draft.to_bytes()
    }

    fn told(envelopes: &[Envelope<'_>]) -> String {
        format!("{envelopes:?}")
    }

    #[test]
    fn what_we_write_is_read_the_short_way() {
        let data = ["{\"on\":true,\"by\":\"}\\\"]\"}", "1", "null", "[{}]", "\"a\"", "-1.5e3", "{}"];
        for traceparent in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")] {
            let bytes = commit(traceparent, &data);
            let short = read(&bytes).expect("the short way");
            let long: Vec<Envelope<'_>> = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(short.len(), data.len());
            assert_eq!(told(&short), told(&long));
        }
    }

    #[test]
    fn an_escape_or_another_order_goes_the_long_way() {
        let text = String::from_utf8(commit(None, &["{}"])).expect("text");
        for (from, to) in
            [("kitchen", "k\\u0069tchen"), ("[{", "[ {"), ("\"actor\"", "\"x\":1,\"actor\""), ("}]", "}]\n")]
        {
            let changed = text.replace(from, to);
            assert!(changed != text && read(changed.as_bytes()).is_none(), "{to:?}");
            assert!(super::super::Commit::parse(changed.as_bytes()).is_ok(), "{to:?}");
        }
    }

    #[test]
    fn whatever_byte_is_changed_both_ways_agree() {
        let sound = commit(Some("00-0a-b7-01"), &["{\"on\":[1,\"x\"]}", "0"]);
        for at in 0..sound.len() {
            for byte in 0..=u8::MAX {
                let mut changed = sound.clone();
                changed[at] = byte;
                agree(&changed);
            }
            agree(&sound[..at]);
            let mut longer = sound.clone();
            for byte in [b' ', b'0', b'"', b'\\', b',', b'}', b']'] {
                longer.insert(at, byte);
                agree(&longer);
                longer.remove(at);
            }
        }
    }

    /// The short way may give up on anything; what it reads, the long way reads alike.
    fn agree(bytes: &[u8]) {
        if let Some(short) = read(bytes) {
            let long: Vec<Envelope<'_>> = serde_json::from_slice(bytes).unwrap_or_else(|error| {
                panic!("only the short way reads {}: {error}", String::from_utf8_lossy(bytes));
            });
            assert_eq!(told(&short), told(&long));
        }
    }

    #[test]
    fn times_are_the_same_either_way() {
        for time in
            ["2026-11-20T09:45:27Z", "2026-11-20T09:45:27.5+02:00", "2026-11-20 09:45:27Z", "2026-11-20T24:00:00Z", "x"]
        {
            let short: Option<Timestamp> = time.parse().ok();
            let long: Option<Timestamp> = serde_json::from_value(time.into()).ok();
            assert_eq!(short, long, "{time}");
        }
    }
}
