//! Folding a run's events.

use std::collections::BTreeMap;

use events::run::Event;

use super::state::{Fate, Finished, Outcome, Phase, Progress, Running, State};

/// Folds one event. Total: what makes no sense here changes nothing.
pub(super) fn evolve(state: State, event: &Event) -> State {
    match (state, event) {
        (State::NotStarted, Event::Started(started)) => State::Running(Box::new(Running {
            workflow: started.workflow.clone(),
            definition_version: started.definition_version,
            definition: started.definition.clone(),
            input: started.input.clone(),
            steps: BTreeMap::new(),
        })),
        (State::Running(run), Event::Completed(_)) => finish(*run, Outcome::Completed),
        (State::Running(run), Event::Failed(_)) => finish(*run, Outcome::Failed),
        (State::Running(run), Event::Cancelled(_)) => finish(*run, Outcome::Cancelled),
        (State::Running(mut run), event) => {
            progress(&mut run, event);
            State::Running(run)
        }
        (state, _) => state,
    }
}

fn finish(run: Running, outcome: Outcome) -> State {
    let Running { workflow, definition_version, input, steps, .. } = run;
    let fates = steps.into_iter().filter_map(|(id, progress)| Some((id, progress.fate?))).collect();
    State::Finished(Box::new(Finished { workflow, definition_version, input, outcome, fates }))
}

fn progress(run: &mut Running, event: &Event) {
    match event {
        Event::StepScheduled(event) => {
            let phase = Phase::Scheduled { due_at: event.due_at, deadline: event.deadline };
            enter(run, &event.step, event.attempt, phase);
        }
        Event::StepRetryScheduled(event) => {
            enter(run, &event.step, event.attempt, Phase::Backoff { due_at: event.due_at });
        }
        Event::StepStarted(event) => {
            let phase = Phase::Started { worker: event.worker.clone(), deadline: event.deadline };
            enter(run, &event.step, event.attempt, phase);
        }
        Event::StepReturned(event) => {
            enter(run, &event.step, event.attempt, Phase::Scheduled { due_at: None, deadline: None });
        }
        Event::StepCompleted(event) => {
            let output = match &event.output_of {
                None => event.output.clone(),
                Some(source) => run.value_of(source),
            };
            leave(run, &event.step, event.attempt, Fate::Completed);
            if let Some(progress) = run.steps.get_mut(&event.step) {
                progress.output = Some(output);
            }
        }
        Event::StepFailed(event) => leave(run, &event.step, event.attempt, Fate::Failed),
        Event::StepTimedOut(event) => leave(run, &event.step, event.attempt, Fate::TimedOut),
        Event::Started(_) | Event::Completed(_) | Event::Failed(_) | Event::Cancelled(_) => {}
    }
}

fn enter(run: &mut Running, step: &str, attempt: u32, phase: Phase) {
    match run.steps.get_mut(step) {
        Some(progress) => {
            progress.attempt = attempt;
            progress.phase = Some(phase);
        }
        None => {
            let progress = Progress { attempt, phase: Some(phase), fate: None, output: None };
            run.steps.insert(step.to_owned(), progress);
        }
    }
}

fn leave(run: &mut Running, step: &str, attempt: u32, fate: Fate) {
    if let Some(progress) = run.steps.get_mut(step) {
        progress.attempt = attempt;
        progress.phase = None;
        progress.fate = Some((attempt, fate));
    }
}
