//! Documents from the command line: `-d JSON`, `-d @file`, `-d -`.

use std::io::Read;

use serde_json::value::RawValue;

use crate::failure::{Exit, Failure, Outcome};

/// Reads a document and checks that it is JSON. It is passed on as it was written: no number loses a digit.
pub(crate) fn json(argument: &str) -> Outcome<Box<RawValue>> {
    let (what, text) = match argument {
        "-" => ("stdin".to_owned(), text("-")?),
        _ => match argument.strip_prefix('@') {
            Some(path) => (path.to_owned(), text(path)?),
            None => ("-d".to_owned(), argument.to_owned()),
        },
    };
    parse(&what, &text)
}

/// Reads a document from a file, or from stdin if the path is `-`.
pub(crate) fn document(path: &str) -> Outcome<Box<RawValue>> {
    parse(if path == "-" { "stdin" } else { path }, &text(path)?)
}

fn parse(what: &str, text: &str) -> Outcome<Box<RawValue>> {
    serde_json::from_str(text.trim()).map_err(|error| Failure::usage(format!("{what} is not valid JSON: {error}")))
}

fn text(path: &str) -> Outcome<String> {
    if path == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        return read
            .map(|_| text)
            .map_err(|error| Failure::new(Exit::Failed, format!("could not read stdin: {error}")));
    }
    std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("could not read {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_every_digit() {
        let text = r#"{"n": 12345678901234567890123.10}"#;
        assert_eq!(json(text).unwrap().get(), text);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, text).unwrap();
        assert_eq!(json(&format!("@{}", path.display())).unwrap().get(), text);
        assert_eq!(json("{").unwrap_err().exit, Exit::Usage);
        assert_eq!(json("@/does/not/exist").unwrap_err().exit, Exit::Usage);
    }
}
