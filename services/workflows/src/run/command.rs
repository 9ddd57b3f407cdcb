//! What may be asked of a run, and how it is read.

use std::sync::Arc;

use events::run::StepError;
use kernel::{Access, CommandSet, CommandSpec, PrincipalId, Problem, Stamp, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::definition::{MAX_REASON_CHARS, ResolvedDefinition};
use crate::seconds::{self, MAX_TIMEOUT_MS};
use kernel::storable::{cut, ensure_storable, too_large};

/// Longest input of a run, in bytes of JSON.
pub const MAX_INPUT_BYTES: usize = 256 * 1024;

/// Longest output of a step, in bytes of JSON. Larger results belong into a file, and its name into the output.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Longest message of an error that is kept, in characters; the rest is cut off.
const MAX_MESSAGE_CHARS: usize = 4_000;
const MAX_TYPE_CHARS: usize = 200;
const MAX_WORKER_CHARS: usize = 200;

/// What may be asked of a run. `at` is when the command was taken.
#[derive(Debug, Clone)]
pub enum Command {
    /// Starts the run.
    Start {
        /// Which workflow.
        workflow: String,
        /// Which version of it; the latest when nobody says.
        version: Option<u32>,
        /// What it gets.
        input: Arc<Value>,
        /// What it will do. Not part of what a caller sends: it is looked up between reading and deciding.
        definition: Option<ResolvedDefinition>,
        /// See above.
        at: Timestamp,
    },
    /// Ends the run where it stands.
    Cancel {
        /// Why, in the caller's words.
        reason: Option<String>,
    },
    /// A worker claims an attempt.
    StartStep {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// Who claims it; the principal when nobody says.
        worker: String,
        /// See above.
        at: Timestamp,
    },
    /// An attempt succeeded.
    CompleteStep {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// What it returned.
        output: Arc<Value>,
        /// Who says so.
        by: PrincipalId,
        /// See above.
        at: Timestamp,
    },
    /// An attempt failed.
    FailStep {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// Why.
        error: StepError,
        /// Not before so many milliseconds have passed.
        retry_after_ms: Option<u64>,
        /// Who says so.
        by: PrincipalId,
        /// The run's id.
        run: String,
        /// See above.
        at: Timestamp,
    },
    /// A claim did not reach its worker.
    ReturnStep {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// Who had claimed it.
        worker: String,
    },
    /// The deadline of an attempt has passed.
    TimeOutStep {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// The run's id.
        run: String,
        /// See above.
        at: Timestamp,
    },
    /// A wait is over.
    FinishWait {
        /// The step's id.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// See above.
        at: Timestamp,
    },
    /// The pause before another attempt is over.
    RetryStep {
        /// The step's id.
        step: String,
        /// The coming attempt.
        attempt: u32,
        /// See above.
        at: Timestamp,
    },
}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "start", access: Access::Public, about: "Starts a run of a workflow." },
        CommandSpec { name: "cancel", access: Access::Public, about: "Ends the run where it stands." },
        CommandSpec { name: "start-step", access: Access::Public, about: "Claims an attempt of a task for a worker." },
        CommandSpec { name: "complete-step", access: Access::Public, about: "Reports that an attempt succeeded." },
        CommandSpec { name: "fail-step", access: Access::Public, about: "Reports that an attempt failed." },
        CommandSpec {
            name: "return-step",
            access: Access::Internal,
            about: "A claim did not reach its worker; another may have the attempt.",
        },
        CommandSpec {
            name: "time-out-step",
            access: Access::Internal,
            about: "The deadline of an attempt has passed.",
        },
        CommandSpec { name: "finish-wait", access: Access::Internal, about: "A wait is over." },
        CommandSpec {
            name: "retry-step",
            access: Access::Internal,
            about: "The pause before another attempt is over.",
        },
    ];

    fn parse(name: &str, body: &[u8], stamp: &Stamp) -> Result<Self, Problem> {
        let at = stamp.at;
        let run = || stamp.stream.id.as_str().to_owned();
        match name {
            "start" => start(body, at),
            "cancel" => {
                let Cancel { reason } = kernel::object(body)?;
                Ok(Self::Cancel { reason: reason.map(|reason| cut(reason, MAX_REASON_CHARS)) })
            }
            "start-step" => {
                let StartStep { step, attempt, worker } = kernel::object(body)?;
                let worker = worker.unwrap_or_else(|| stamp.principal.as_str().to_owned());
                Ok(Self::StartStep { step, attempt, worker: cut(worker, MAX_WORKER_CHARS), at })
            }
            "complete-step" => complete(body, stamp),
            "fail-step" => fail(body, stamp),
            "return-step" => {
                let ReturnStep { step, attempt, worker } = kernel::object(body)?;
                Ok(Self::ReturnStep { step, attempt, worker: cut(worker, MAX_WORKER_CHARS) })
            }
            "time-out-step" => {
                let Attempt { step, attempt } = kernel::object(body)?;
                Ok(Self::TimeOutStep { step, attempt, run: run(), at })
            }
            "finish-wait" => {
                let Attempt { step, attempt } = kernel::object(body)?;
                Ok(Self::FinishWait { step, attempt, at })
            }
            "retry-step" => {
                let Attempt { step, attempt } = kernel::object(body)?;
                Ok(Self::RetryStep { step, attempt, at })
            }
            _ => Err(Problem::not_found(format!("A run knows no command `{name}`."))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    workflow: String,
    version: Option<u32>,
    #[serde(default)]
    input: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    step: String,
    attempt: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReturnStep {
    step: String,
    attempt: u32,
    worker: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartStep {
    step: String,
    attempt: u32,
    worker: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompleteStep {
    step: String,
    attempt: u32,
    #[serde(default)]
    output: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailStep {
    step: String,
    attempt: u32,
    error: Reported,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    retryable: Option<bool>,
    no_effect: Option<bool>,
    retry_after_seconds: Option<f64>,
}

fn start(body: &[u8], at: Timestamp) -> Result<Command, Problem> {
    let Start { workflow, version, input } = sized(body, MAX_INPUT_BYTES, "input")?;
    ensure_storable(&input, "input", body.len(), MAX_INPUT_BYTES)?;
    kernel::Token::parse("the workflow", &workflow)?;
    Ok(Command::Start { workflow, version, input: input.into(), definition: None, at })
}

fn complete(body: &[u8], stamp: &Stamp) -> Result<Command, Problem> {
    let CompleteStep { step, attempt, output } = sized(body, MAX_OUTPUT_BYTES, "output")?;
    ensure_storable(&output, "output", body.len(), MAX_OUTPUT_BYTES)?;
    Ok(Command::CompleteStep { step, attempt, output: output.into(), by: stamp.principal.clone(), at: stamp.at })
}

fn fail(body: &[u8], stamp: &Stamp) -> Result<Command, Problem> {
    let FailStep { step, attempt, error } = kernel::object(body)?;
    let retry_after_ms = match error.retry_after_seconds.map(|pause| seconds::to_ms(pause, MAX_TIMEOUT_MS)) {
        None => None,
        Some(Some(ms)) => Some(ms),
        Some(None) => {
            let pointer = "/error/retry_after_seconds".to_owned();
            let detail = format!("must be a number of seconds from 0 to {}.", MAX_TIMEOUT_MS / 1000);
            return Err(Problem::invalid(vec![kernel::FieldError { pointer, detail }]));
        }
    };
    let error = StepError {
        kind: cut(error.kind, MAX_TYPE_CHARS),
        message: cut(error.message, MAX_MESSAGE_CHARS),
        retryable: error.retryable.unwrap_or(true),
        no_effect: error.no_effect.unwrap_or(false),
    };
    let (by, run) = (stamp.principal.clone(), stamp.stream.id.as_str().to_owned());
    Ok(Command::FailStep { step, attempt, error, retry_after_ms, by, run, at: stamp.at })
}

/// Reads a body that may carry a value of so many bytes, without reading what is far too large.
fn sized<T: serde::de::DeserializeOwned>(body: &[u8], limit: usize, what: &str) -> Result<T, Problem> {
    // Blanks and escapes may take more room on the way than the value takes in the log.
    if body.len() > limit.saturating_mul(2) { Err(too_large(what, limit)) } else { kernel::object(body) }
}
