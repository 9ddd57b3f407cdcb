//! People of a stack: they register, read their mail, and sign in, as anybody would.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serving::{Serving, Shared};
use crate::stack::{Http, Stack};

/// A password that nobody guesses. Everybody here has it, unless a story is about passwords.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The folder in which a stack lays its mails.
#[derive(Clone)]
pub(crate) struct Mailbox(PathBuf);

/// A mail.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Letter {
    /// The first word that begins with this: codes begin with what they are for.
    pub(crate) fn word(&self, prefix: &str) -> String {
        let found = self.text.split(|c: char| c.is_whitespace() || c == '"').find(|word| word.starts_with(prefix));
        found.unwrap_or_else(|| panic!("no {prefix}… in {self:?}")).to_owned()
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_default().trim()
}

impl Mailbox {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// All mails to an address, in the order in which they were sent.
    pub(crate) fn to(&self, address: &str) -> Vec<Letter> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.file_name().unwrap().to_str().is_some_and(|name| !name.starts_with('.')));
        paths.sort();
        let letters = paths.iter().filter_map(|path| {
            let message = std::fs::read_to_string(path).unwrap();
            let (head, text) = message.split_once("\r\n\r\n").unwrap();
            let letter =
                Letter { subject: header(head, "Subject").to_owned(), text: text.trim_end().replace("\r\n", "\n") };
            (header(head, "To") == address).then_some(letter)
        });
        letters.collect()
    }

    /// The mails to an address whose subject begins with this, once there are so many.
    pub(crate) async fn wait_for(&self, address: &str, subject: &str, count: usize) -> Vec<Letter> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let all = self.to(address);
            let found: Vec<Letter> = all.iter().filter(|letter| letter.subject.starts_with(subject)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < until, "no {count} mails `{subject}` came to {address}: {all:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last of them.
    pub(crate) async fn letter(&self, address: &str, subject: &str) -> Letter {
        self.wait_for(address, subject, 1).await.pop().unwrap()
    }
}

/// The door for people, and their mail.
#[derive(Clone)]
pub(crate) struct People {
    /// As nobody in particular.
    pub(crate) http: Http,
    pub(crate) mailbox: Mailbox,
}

/// Somebody who has signed in.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) email: String,
    /// With their access token.
    pub(crate) http: Http,
    pub(crate) refresh_token: String,
}

impl Person {
    /// Out of the answer to a login.
    pub(crate) fn of(http: &Http, answer: &Value) -> Self {
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_i64()), (Some("Bearer"), Some(600)));
        Self {
            id: text("/user/id"),
            email: text("/user/email"),
            http: Http { token: Some(text("/access_token")), ..http.clone() },
            refresh_token: text("/refresh_token"),
        }
    }
}

impl People {
    /// Of a stack that is up.
    pub(crate) fn of(stack: &Stack) -> Self {
        let http = Http { token: None, ..stack.http() };
        Self { http, mailbox: Mailbox::new(&stack.data_dir().join("mailbox")) }
    }

    /// Of a process that shares servers with others.
    pub(crate) fn at(shared: &Shared, serving: &Serving) -> Self {
        let http = Http { token: None, ..serving.http.clone() };
        Self { http, mailbox: Mailbox::new(&shared.mailbox_dir()) }
    }

    /// Posts as nobody in particular and expects a status.
    pub(crate) async fn post(&self, path: &str, body: Value, expected: u16) -> Value {
        self.http.json("POST", path, Some(body), expected).await
    }

    /// Registers `<name>@example.org` under this name.
    pub(crate) async fn register(&self, name: &str) {
        let body = json!({ "email": format!("{name}@example.org"), "username": name, "password": PASSWORD });
        self.post("/v1/auth/register", body, 202).await;
    }

    /// Confirms an address with the code of the last mail to it.
    pub(crate) async fn confirm(&self, email: &str) {
        let code = self.mailbox.letter(email, "Confirm your e-mail address").await.word("aco_");
        self.post("/v1/auth/verify-email", json!({ "code": code }), 200).await;
    }

    /// Signs in by address or username.
    pub(crate) async fn log_in(&self, login: &str) -> Person {
        let answer = self.post("/v1/auth/login", json!({ "login": login, "password": PASSWORD }), 200).await;
        Person::of(&self.http, &answer)
    }

    /// Somebody new, `<name>@example.org`, who has confirmed the address and signed in.
    pub(crate) async fn join(&self, name: &str) -> Person {
        self.register(name).await;
        self.confirm(&format!("{name}@example.org")).await;
        self.log_in(name).await
    }
}
