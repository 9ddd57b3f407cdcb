//! Server-sent events as the HTML standard defines them: bytes in, messages out. Knows nothing of HTTP.

/// A line longer than this is not one of ours; without a limit a broken server could fill our memory.
const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The last id seen up to and including this message.
    pub(crate) id: Option<String>,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it belongs to the same line end.
    after_return: bool,
    last_id: Option<String>,
    /// The id of the message in the making: to resume from it before the message is complete would lose the message.
    next_id: Option<String>,
    event: String,
    data: String,
}

impl Parser {
    /// The id to resume from. It counts as soon as its message is complete, also without data.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Continues after a broken connection: what was incomplete comes again.
    pub(crate) fn reconnected(&mut self) {
        *self = Parser { last_id: self.last_id.take(), ..Parser::default() };
    }

    /// The messages that these bytes complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    messages.extend(self.line_ended(&String::from_utf8_lossy(&line)));
                }
                other => {
                    self.after_return = false;
                    if self.line.len() < LONGEST_LINE {
                        self.line.push(*other);
                    }
                }
            }
        }
        messages
    }

    fn line_ended(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            if let Some(id) = self.next_id.take() {
                self.last_id = Some(id);
            }
            let event = std::mem::take(&mut self.event);
            let mut data = std::mem::take(&mut self.data);
            if data.is_empty() {
                return None;
            }
            data.pop();
            return Some(Message { id: self.last_id.clone(), event, data });
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.next_id = Some(value.to_owned()),
            // Comments keep the connection alive; the rest is not for us.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: p1-1.0\nevent: run.started\ndata: {\"a\":\ndata: 1}\n\nid: p1-2.0\r\ndata:x\r\n\r\nevent: y\n\ndata: cut";

    #[test]
    fn messages_do_not_depend_on_how_the_bytes_are_cut() {
        let expected = [
            Message { id: Some("p1-1.0".to_owned()), event: "run.started".to_owned(), data: "{\"a\":\n1}".to_owned() },
            Message { id: Some("p1-2.0".to_owned()), event: String::new(), data: "x".to_owned() },
        ];
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let messages: Vec<_> = STREAM.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes)).collect();
            assert_eq!(messages, expected, "in chunks of {size}");
            assert_eq!(parser.last_id(), Some("p1-2.0"));
        }
    }

    #[test]
    fn an_id_counts_without_data_and_survives_a_reconnect() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"id: p1-5\n\nid: p1-6\ndata: half"), []);
        parser.reconnected();
        assert_eq!(parser.last_id(), Some("p1-5"));
        assert_eq!(parser.push(b"data: whole\n\n").first().map(|message| message.data.as_str()), Some("whole"));
    }
}
