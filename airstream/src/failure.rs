//! How a command ends when it does not end well: an exit code for scripts and a sentence for people.

use std::{fmt, io};

use kernel::Problem;
use serde_json::Value;

/// The exit codes. Scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Also what a closed pipe ends with: whoever closed it has seen enough.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line or the configuration is wrong. The same number as clap's.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The token is missing, wrong, or not allowed to.
    Auth = 4,
    /// Somebody was faster, or the command id was used for something else.
    Conflict = 5,
    /// It worked, and something was found that somebody should look at.
    Findings = 6,
    /// It took longer than was asked for.
    Timeout = 7,
    /// Nobody answers, or not now.
    Unavailable = 8,
    /// Ended by a signal before it was done.
    Interrupted = 130,
}

impl Exit {
    /// What a status of the HTTP door means for a script.
    pub(crate) fn of_status(status: u16) -> Exit {
        match status {
            401 | 403 => Exit::Auth,
            404 | 410 => Exit::NotFound,
            409 | 412 => Exit::Conflict,
            408 | 504 => Exit::Timeout,
            429 | 502 | 503 => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }

    /// How another process of this program has ended.
    pub(crate) fn of_code(code: i32) -> Exit {
        let all = [
            Exit::Usage,
            Exit::NotFound,
            Exit::Auth,
            Exit::Conflict,
            Exit::Findings,
            Exit::Timeout,
            Exit::Unavailable,
            Exit::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Exit::Failed)
    }

    /// The problem document's status and code when the problem is ours and not the server's.
    fn as_problem(self) -> (u16, &'static str) {
        match self {
            Exit::Ok | Exit::Failed => (500, "failed"),
            Exit::Usage => (400, "usage"),
            Exit::NotFound => (404, "not_found"),
            Exit::Auth => (401, "unauthenticated"),
            Exit::Conflict => (409, "conflict"),
            Exit::Findings => (422, "findings"),
            Exit::Timeout => (504, "timed_out"),
            Exit::Unavailable => (503, "unavailable"),
            Exit::Interrupted => (499, "interrupted"),
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One sentence; empty when everything has been said already.
    pub(crate) message: String,
    /// Further lines, such as the wrong fields of a document or the end of a log.
    pub(crate) details: Vec<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The document that the server answered with.
    pub(crate) problem: Option<Value>,
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What to do about a no.
fn hint_about_access(code: &str) -> Option<&'static str> {
    match code {
        "no_tenant" => Some("`airstream tenants ls` lists yours, `airstream tenants use` chooses one"),
        "not_a_member" => Some("`airstream tenants ls` lists the tenants that you belong to"),
        "role_too_low" => Some("an admin or owner can change your role: `airstream users role`"),
        "insufficient_scope" => Some("a key with more scopes: `airstream keys create NAME --scope …`"),
        "email_not_confirmed" => Some("confirm with the code of the mail: `airstream login --confirm CODE`"),
        "invalid_credentials" | "second_factor_required" | "people_only" | "not_an_operator" => None,
        _ => Some(
            "log in with `airstream login`, or give a token with --token or AIRSTREAM_TOKEN; a local stack needs neither, its own is found",
        ),
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), details: Vec::new(), hint: None, problem: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Ends with this code and without a word.
    pub(crate) fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Failure {
        self.details = details;
        self
    }

    /// An error with its causes, joined once, here. `embedded` and others print one layer each.
    pub(crate) fn because(exit: Exit, error: &dyn std::error::Error) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their cause in their own message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Failure::new(exit, message)
    }

    /// A refusal by the server.
    pub(crate) fn of_problem(status: u16, document: Value) -> Failure {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, detail, title) = (text("code"), text("detail"), text("title"));
        let detail = if detail.is_empty() { title } else { detail };
        let message = match (detail.is_empty(), code.is_empty()) {
            (false, false) => format!("{detail} ({code})"),
            (false, true) => detail,
            (true, _) => format!("the server answered with status {status}"),
        };
        let errors = document.get("errors").and_then(Value::as_array).into_iter().flatten();
        let details = errors.map(|error| {
            let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            let pointer = if part("pointer").is_empty() { "(document)" } else { part("pointer") };
            format!("{pointer}: {}", part("detail"))
        });
        let details = details.collect();
        let retry = document.get("retry_after_ms").and_then(Value::as_u64);
        let exit = if ["command_id_reused", "idempotency_key_reused"].contains(&code.as_str()) {
            Exit::Conflict
        } else {
            Exit::of_status(status)
        };
        let hint = match (exit, retry) {
            (Exit::Auth, _) => hint_about_access(&code).map(str::to_owned),
            (_, Some(ms)) => Some(format!("try again in {ms} ms")),
            _ => None,
        };
        Failure { exit, message, details, hint, problem: Some(document) }
    }

    /// The code of the problem, if a server said it: ours, or an error of OAuth.
    pub(crate) fn code(&self) -> Option<&str> {
        let problem = self.problem.as_ref()?;
        problem.get("code").or_else(|| problem.get("error")).and_then(Value::as_str)
    }

    /// The problem document for `--json`: the server's, or one of our own in the same shape.
    pub(crate) fn document(&self) -> Value {
        if let Some(problem) = &self.problem {
            return problem.clone();
        }
        let (status, code) = self.exit.as_problem();
        let mut problem = serde_json::to_value(Problem::new(status, code, self.message.clone())).unwrap_or_default();
        if let Some(fields) = problem.as_object_mut() {
            if let Some(hint) = &self.hint {
                fields.insert("hint".to_owned(), hint.clone().into());
            }
            if !self.details.is_empty() {
                fields.insert("details".to_owned(), self.details.clone().into());
            }
        }
        problem
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        let exit = if error.chain().any(nobody_answered) { Exit::Unavailable } else { Exit::Failed };
        let full = error.chain().any(disk_is_full);
        let error: &(dyn std::error::Error + 'static) = error.as_ref();
        let failure = Failure::because(exit, error);
        if full { failure.hint("the disk is full: free some space and start again") } else { failure }
    }
}

/// Whether this is what a driver says when there is no server, or none that it can talk to in time.
fn nobody_answered(cause: &(dyn std::error::Error + 'static)) -> bool {
    use async_nats::ConnectErrorKind;
    if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
        return matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut);
    }
    cause.downcast_ref::<async_nats::ConnectError>().is_some_and(|error| {
        matches!(error.kind(), ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io)
    })
}

/// PostgreSQL's `disk_full`.
fn disk_is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    let error = cause.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    error.is_some_and(|error| error.code().is_some_and(|code| code == "53100"))
}

impl From<embedded::StartError> for Failure {
    fn from(error: embedded::StartError) -> Failure {
        match &error {
            embedded::StartError::NotWritable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let hint = "the folder is another user's: own it, or name a folder of your own with --data-dir";
                Failure::because(Exit::Auth, &error).hint(hint)
            }
            _ => Failure::because(Exit::Failed, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_a_sentence_its_fields_and_an_exit_code() {
        let document = serde_json::json!({
            "status": 422, "code": "invalid", "detail": "2 parts are not valid.",
            "errors": [{"pointer": "/steps/0/id", "detail": "used twice"}, {"pointer": "", "detail": "too long"}],
        });
        let failure = Failure::of_problem(422, document.clone());
        assert_eq!(failure.message, "2 parts are not valid. (invalid)");
        assert_eq!(failure.details, ["/steps/0/id: used twice", "(document): too long"]);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.document(), document);
    }

    #[test]
    fn a_server_that_is_not_there_is_unavailable() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let database = projections::Failure { attempt: "connect to Postgres", source: sqlx::Error::Io(refused()) };
        let database = Failure::from(anyhow::Error::new(database).context("PostgreSQL at h:1 is needed"));
        assert_eq!(database.exit, Exit::Unavailable);
        assert!(database.message.starts_with("PostgreSQL at h:1 is needed: could not connect"), "{}", database.message);
        let bus = async_nats::ConnectError::with_source(async_nats::ConnectErrorKind::Io, refused());
        assert_eq!(Failure::from(anyhow::Error::new(bus)).exit, Exit::Unavailable);
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(Failure::from(anyhow::Error::new(taken)).exit, Exit::Failed);
        assert_eq!(
            (Exit::of_code(8), Exit::of_code(1), Exit::of_code(101)),
            (Exit::Unavailable, Exit::Failed, Exit::Failed)
        );
    }

    #[test]
    fn every_status_has_its_exit_code() {
        for (status, exit) in [
            (400, Exit::Failed),
            (401, Exit::Auth),
            (403, Exit::Auth),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (503, Exit::Unavailable),
            (504, Exit::Timeout),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
        let reused = serde_json::json!({"code": "command_id_reused", "detail": "x"});
        assert_eq!(Failure::of_problem(422, reused).exit, Exit::Conflict);
    }

    #[test]
    fn a_failure_of_ours_has_the_shape_of_the_servers() {
        let document = Failure::new(Exit::Unavailable, "nobody answers").hint("start it").document();
        assert_eq!(document.get("code").and_then(Value::as_str), Some("unavailable"));
        assert_eq!(document.get("detail").and_then(Value::as_str), Some("nobody answers"));
        assert_eq!(document.get("hint").and_then(Value::as_str), Some("start it"));
    }
}
