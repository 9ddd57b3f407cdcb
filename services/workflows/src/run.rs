//! The decider of runs.
//!
//! It protects one invariant: every step of the definition that the run was started with completes at most once, in
//! order, and the run ends exactly once. One command decides all of its consequences: the result of a step and what
//! comes after it are one commit, so no crash can fall between them.

use std::sync::Arc;

use events::run::{
    self, Cancelled, Event, Source, Started, StepCompleted, StepError, StepFailed, StepReturned, StepStarted,
    StepTimedOut,
};
use events::workflow::{Kind, Step};
use kernel::{Decider, PrincipalId, Timestamp};
use serde_json::Value;

mod advance;
mod backoff;
mod command;
mod evolve;
mod rejection;
mod state;
#[cfg(test)]
mod tests;

use crate::definition::ResolvedDefinition;
use crate::seconds::later;
use advance::{Carried, advance, after_failure};

pub use command::{Command, MAX_INPUT_BYTES, MAX_OUTPUT_BYTES};
pub use rejection::Rejection;
pub use state::{ActiveStep, Alarm, Fate, Finished, Outcome, Phase, Running, State, Work};

/// Clocks of two machines may differ by this much, in milliseconds: an alarm that rings so little early is believed.
const CLOCK_SKEW_MS: u64 = 1_000;

/// The decider of the category `run`.
#[derive(Debug, Clone, Copy)]
pub struct Run;

impl Decider for Run {
    const CATEGORY: &'static str = run::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Rejection> {
        if is_repeated(state, &command) {
            return Ok(vec![]);
        }
        match command {
            Command::Start { workflow, version, input, definition, at } => {
                start(state, workflow, version, input, definition, at)
            }
            Command::Cancel { reason } => {
                running(state)?;
                Ok(vec![Cancelled { reason }.into()])
            }
            Command::StartStep { step, attempt, worker, at } => claim(running(state)?, &step, attempt, worker, at),
            Command::CompleteStep { step, attempt, output, by, at } => {
                let run = running(state)?;
                let (index, _) = reportable(run, &step, attempt, &by, at)?;
                let carried = Carried { source: Source::Step(step.clone()), value: output.clone() };
                let mut events = vec![StepCompleted { step, attempt, output, output_of: None }.into()];
                advance(&run.definition, index + 1, carried, at, &mut events);
                Ok(events)
            }
            Command::FailStep { step, attempt, error, retry_after_ms, by, run, at } => {
                let (_, found) = reportable(running(state)?, &step, attempt, &by, at)?;
                let mut events = vec![StepFailed { step, attempt, error: error.clone() }.into()];
                after_failure(found, attempt, error, retry_after_ms, &run, at, &mut events);
                Ok(events)
            }
            Command::ReturnStep { step, attempt, worker } => give_back(running(state)?, step, attempt, worker),
            Command::TimeOutStep { step, attempt, run, at } => time_out(running(state)?, step, attempt, &run, at),
            Command::FinishWait { step, attempt, at } => finish_wait(running(state)?, step, attempt, at),
            Command::RetryStep { step, attempt, at } => retry(running(state)?, &step, attempt, at),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }
}

/// Whether a command asks for what has already happened, so that nothing is left to do.
fn is_repeated(state: &State, command: &Command) -> bool {
    let (step, attempt, fate) = match command {
        Command::Cancel { .. } => {
            return matches!(state, State::Finished(finished) if finished.outcome == Outcome::Cancelled);
        }
        Command::CompleteStep { step, attempt, .. } | Command::FinishWait { step, attempt, .. } => {
            (step, attempt, Fate::Completed)
        }
        Command::FailStep { step, attempt, .. } => (step, attempt, Fate::Failed),
        Command::TimeOutStep { step, attempt, .. } => (step, attempt, Fate::TimedOut),
        Command::Start { .. } | Command::StartStep { .. } | Command::ReturnStep { .. } | Command::RetryStep { .. } => {
            return false;
        }
    };
    state.fate(step) == Some((*attempt, fate))
}

fn start(
    state: &State,
    workflow: String,
    version: Option<u32>,
    input: Arc<Value>,
    resolved: Option<ResolvedDefinition>,
    at: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    let known = match state {
        State::NotStarted => None,
        State::Running(run) => Some((&run.workflow, run.definition_version, &run.input)),
        State::Finished(run) => Some((&run.workflow, run.definition_version, &run.input)),
    };
    if let Some((known, its_version, its_input)) = known {
        let same = *known == workflow && version.is_none_or(|version| version == its_version) && *its_input == input;
        return if same { Ok(vec![]) } else { Err(Rejection::AlreadyStarted { workflow: known.clone() }) };
    }
    let Some(resolved) = resolved else { return Err(Rejection::UnknownWorkflow { workflow }) };
    let started = Started {
        workflow,
        definition_version: resolved.version,
        definition_hash: resolved.hash,
        definition: resolved.definition.clone(),
        input: input.clone(),
    };
    let mut events = vec![started.into()];
    advance(&resolved.definition, 0, Carried { source: Source::Input, value: input }, at, &mut events);
    Ok(events)
}

fn running(state: &State) -> Result<&Running, Rejection> {
    match state {
        State::NotStarted => Err(Rejection::NotStarted),
        State::Running(run) => Ok(run),
        State::Finished(run) => Err(Rejection::AlreadyFinished { outcome: run.outcome }),
    }
}

/// Finds the attempt that a command is about: the step's current one, if it is under way.
fn active<'a>(run: &'a Running, step: &str, attempt: u32) -> Result<(usize, &'a Step, &'a Phase), Rejection> {
    let unknown = || Rejection::UnknownStep { step: step.to_owned() };
    let (index, found) = run.definition.step(step).ok_or_else(unknown)?;
    let Some(progress) = run.progress(step) else { return Err(Rejection::NotScheduled { step: step.to_owned() }) };
    if progress.attempt != attempt {
        return Err(Rejection::StaleAttempt { current: progress.attempt });
    }
    let phase = progress.phase.as_ref().ok_or_else(|| Rejection::StepOver { step: step.to_owned() })?;
    Ok((index, found, phase))
}

/// Finds an attempt whose result may be reported by this principal.
fn reportable<'a>(
    run: &'a Running,
    step: &str,
    attempt: u32,
    by: &PrincipalId,
    at: Timestamp,
) -> Result<(usize, &'a Step), Rejection> {
    let (index, found, phase) = active(run, step, attempt)?;
    let allowed = match found.kind() {
        Kind::Task => true,
        // The platform makes the request, so nobody else can know its result.
        Kind::Http => *by == PrincipalId::system(),
        Kind::Wait | Kind::Pass => false,
    };
    match phase {
        _ if !allowed => Err(Rejection::WrongKind { step: step.to_owned(), kind: found.kind() }),
        Phase::Backoff { due_at } => Err(Rejection::not_due(*due_at, at)),
        Phase::Scheduled { .. } | Phase::Started { .. } => Ok((index, found)),
    }
}

fn claim(run: &Running, step: &str, attempt: u32, worker: String, at: Timestamp) -> Result<Vec<Event>, Rejection> {
    let (_, found, phase) = active(run, step, attempt)?;
    let (Kind::Task, Some(timeout_ms)) = (found.kind(), found.timeout_ms()) else {
        return Err(Rejection::WrongKind { step: step.to_owned(), kind: found.kind() });
    };
    match phase {
        Phase::Scheduled { .. } => {
            let deadline = later(at, timeout_ms);
            Ok(vec![StepStarted { step: step.to_owned(), attempt, worker, deadline }.into()])
        }
        Phase::Started { worker: by, .. } if *by == worker => Ok(vec![]),
        Phase::Started { worker: by, .. } => Err(Rejection::AlreadyClaimed { by: by.clone() }),
        Phase::Backoff { due_at } => Err(Rejection::not_due(*due_at, at)),
    }
}

/// Only the claim that was made for this worker is taken back: by now the attempt may be somebody else's.
fn give_back(run: &Running, step: String, attempt: u32, worker: String) -> Result<Vec<Event>, Rejection> {
    let (_, _, phase) = active(run, &step, attempt)?;
    match phase {
        Phase::Started { worker: by, .. } if *by == worker => Ok(vec![StepReturned { step, attempt, worker }.into()]),
        _ => Ok(vec![]),
    }
}

fn time_out(run: &Running, step: String, attempt: u32, id: &str, at: Timestamp) -> Result<Vec<Event>, Rejection> {
    let (_, found, phase) = active(run, &step, attempt)?;
    let deadline = match phase {
        Phase::Started { deadline, .. } | Phase::Scheduled { deadline: Some(deadline), .. } => *deadline,
        Phase::Backoff { .. } | Phase::Scheduled { deadline: None, .. } => {
            return Err(Rejection::NotScheduled { step });
        }
    };
    ensure_due(deadline, at)?;
    let limit = found.timeout_ms().unwrap_or_default() as f64 / 1000.0;
    let error = StepError {
        kind: "timeout".to_owned(),
        message: format!("Attempt {attempt} brought no result within {limit} s."),
        retryable: true,
        no_effect: false,
    };
    let mut events = vec![StepTimedOut { step, attempt }.into()];
    after_failure(found, attempt, error, None, id, at, &mut events);
    Ok(events)
}

fn finish_wait(run: &Running, step: String, attempt: u32, at: Timestamp) -> Result<Vec<Event>, Rejection> {
    let (index, found, phase) = active(run, &step, attempt)?;
    let Phase::Scheduled { due_at: Some(due_at), .. } = phase else {
        return Err(Rejection::WrongKind { step, kind: found.kind() });
    };
    ensure_due(*due_at, at)?;
    let handed_on = run.carried_to(index);
    let output_of = Some(handed_on.source);
    let carried = Carried { source: Source::Step(step.clone()), value: handed_on.value };
    let mut events = vec![StepCompleted { step, attempt, output: Arc::default(), output_of }.into()];
    advance(&run.definition, index + 1, carried, at, &mut events);
    Ok(events)
}

fn retry(run: &Running, step: &str, attempt: u32, at: Timestamp) -> Result<Vec<Event>, Rejection> {
    let (_, found, phase) = active(run, step, attempt)?;
    match phase {
        Phase::Backoff { due_at } => {
            ensure_due(*due_at, at)?;
            Ok(vec![advance::scheduled(found, attempt, at).into()])
        }
        Phase::Scheduled { .. } | Phase::Started { .. } => Ok(vec![]),
    }
}

fn ensure_due(due_at: Timestamp, at: Timestamp) -> Result<(), Rejection> {
    if due_at > later(at, CLOCK_SKEW_MS) { Err(Rejection::not_due(due_at, at)) } else { Ok(()) }
}
