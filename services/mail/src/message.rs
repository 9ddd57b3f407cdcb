//! A mail as it stands on paper: RFC 5322.

use std::time::SystemTime;

use lettre::Message;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, SinglePart};
use projections::mail::Claimed;
use sha2::{Digest, Sha256};

/// Longest line that may stand in a message as it is (RFC 5322, 2.1.1).
const LONGEST_LINE_BYTES: usize = 998;

/// Whom our mails are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

impl Sender {
    /// Reads `Airstream <no-reply@example.org>` or `no-reply@example.org`.
    ///
    /// # Errors
    /// A sentence that says what it should look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mailbox = text
            .parse()
            .map_err(|error| format!("'{text}' is no sender such as `Airstream <no-reply@example.org>`: {error}"))?;
        Ok(Self(mailbox))
    }

    /// Its part after the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.email.domain()
    }
}

/// How the text stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// So that every server can pass it on.
    ForServers,
    /// So that people can read the file.
    ForPeople,
}

/// Writes a mail. The same mail is the same message each time, to the byte.
///
/// # Errors
/// What is wrong with it: then it can never be sent.
pub(crate) fn compose(sender: &Sender, mail: &Claimed, form: Form) -> Result<Message, String> {
    let to = mail.to.parse().map_err(|error| format!("the address is none: {error}"))?;
    // The last line is ended for us.
    let text = mail.text.trim_end().replace("\r\n", "\n").replace('\n', "\r\n");
    let plain = text.lines().all(|line| line.len() <= LONGEST_LINE_BYTES) && !text.contains('\0');
    let body = match form {
        Form::ForServers => Body::new(text),
        // A link of a hundred characters stays one line.
        Form::ForPeople if plain => Body::dangerous_pre_encoded(text.into_bytes(), ContentTransferEncoding::EightBit),
        Form::ForPeople => Body::new_with_encoding(text, ContentTransferEncoding::Base64)
            .map_err(|_| "the text cannot be written down".to_owned())?,
    };
    let part = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body);
    let message = Message::builder()
        .from(sender.0.clone())
        .to(Mailbox::new(None, to))
        .subject(one_line(&mail.subject))
        .date(SystemTime::from(mail.created_at))
        .message_id(Some(message_id(&mail.id, sender.domain())))
        // No vacation notice answers a program (RFC 3834).
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    message.singlepart(part).map_err(|error| format!("it cannot be written down: {error}"))
}

/// Follows from the mail's own id, so that a server can tell a double.
fn message_id(id: &str, domain: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("<{name}@{domain}>")
}

/// A line break in a subject would begin another header.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn mail(subject: &str, text: &str) -> Claimed {
        Claimed {
            id: "verify/usr_1".into(),
            kind: "verify-email".into(),
            to: "ann@example.org".into(),
            subject: subject.into(),
            text: text.into(),
            created_at: "2026-11-20T18:30:05.250Z".parse().expect("a time"),
            age: Duration::ZERO,
            tries: 1,
        }
    }

    pub(crate) fn sender() -> Sender {
        Sender::parse("Airstream <no-reply@mail.example.org>").expect("a sender")
    }

    fn written(mail: &Claimed, form: Form) -> String {
        String::from_utf8(compose(&sender(), mail, form).expect("a message").formatted()).expect("text")
    }

    #[test]
    fn a_mail_says_who_when_and_that_a_program_sent_it() {
        let said = written(&mail("Confirm your address", "Hello,\nopen this.\n"), Form::ForServers);
        for line in [
            "From: Airstream <no-reply@mail.example.org>",
            "To: ann@example.org",
            "Subject: Confirm your address",
            "Date: Fri, 20 Nov 2026 18:30:05 +0000",
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(said.contains(&format!("{line}\r\n")), "{line}\n{said}");
        }
        assert!(said.ends_with("\r\n\r\nHello,\r\nopen this.\r\n"), "{said}");
    }

    #[test]
    fn the_same_mail_is_the_same_message_each_time() {
        let once = mail("Hello", "text");
        let again = Claimed { tries: 7, ..once.clone() };
        assert_eq!(written(&once, Form::ForServers), written(&again, Form::ForServers));
        let other = Claimed { id: "verify/usr_2".into(), ..once.clone() };
        assert_ne!(message_id(&once.id, "a.org"), message_id(&other.id, "a.org"));
    }

    #[test]
    fn nobody_writes_headers_into_a_subject_or_an_address() {
        let said = written(&mail("Hello\r\nBcc: eve@example.org", "text"), Form::ForServers);
        assert!(!said.contains("\nBcc:"), "{said}");
        let mail = Claimed { to: "ann@example.org\r\nBcc: eve@example.org".into(), ..mail("Hello", "text") };
        assert!(compose(&sender(), &mail, Form::ForServers).is_err());
    }

    #[test]
    fn a_server_gets_seven_bits_and_a_person_gets_letters() {
        let link = format!("https://example.org/?token=a=b{}", "x".repeat(200));
        let mail = mail("Grüße", &format!("Öffnen: {link}\n"));
        let (server, person) = (written(&mail, Form::ForServers), written(&mail, Form::ForPeople));
        assert!(server.is_ascii(), "{server}");
        assert!(person.contains(&format!("\r\n\r\nÖffnen: {link}\r\n")), "{person}");
        assert!(written(&Claimed { text: "a\0b".into(), ..mail.clone() }, Form::ForPeople).contains("base64"));
        let long = Claimed { text: "x".repeat(5_000), ..mail };
        for form in [Form::ForServers, Form::ForPeople] {
            assert!(written(&long, form).lines().all(|line| line.len() <= LONGEST_LINE_BYTES));
        }
    }
}
