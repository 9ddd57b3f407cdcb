//! What happened, line by line: always as a hash, and as text when somebody wants to read it.

use std::fmt::{self, Write};

/// FNV-1a over every line; with the lines themselves when they are kept.
pub(crate) struct Trace {
    hash: u64,
    lines: Option<String>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(String::new) }
    }

    pub(crate) fn line(&mut self, at_ms: u128, line: fmt::Arguments<'_>) {
        let _ = writeln!(self, "{at_ms:>7} {line}");
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> String {
        self.lines.take().unwrap_or_default()
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push_str(text);
        }
        Ok(())
    }
}
