//! The writer of a stream: what is done with one command. It never decides on anything the guard would not confirm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kernel::{
    CommandId, Draft, FieldError, Fingerprint, NewEvent, Position, Problem, Stamp, StreamName, Timestamp, storable,
};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::execute::{Environment, ExecutorRef, defect, outcome_unknown};
use crate::folded::{BoxState, Folded};
use crate::registry::ErasedDecider;
use crate::retry::Backoff;
use crate::shard::{Ask, Looking};
use crate::{
    Answer, Append, AppendError, Freshness, Inspected, LogError, Lookup, Recorded, Request, clock, telemetry, trace,
};

/// One job's work on one stream.
pub(crate) struct Work {
    pub(crate) environment: Arc<Environment>,
    pub(crate) executor: ExecutorRef,
    pub(crate) stream: StreamName,
    pub(crate) until: Instant,
}

/// A result, and the folded stream if it can still be trusted.
type Outcome<T> = (Result<T, Problem>, Option<Folded>);

impl Work {
    pub(crate) async fn perform(&self, ask: Ask, folded: Option<Folded>) -> Option<Folded> {
        // Behind a log that is away, jobs wait longer than their callers do. What nobody waits for is not begun.
        if Instant::now() >= self.until {
            let problem = || Problem::unavailable("The command waited too long and was not begun.", 1_000);
            match ask {
                Ask::Execute { reply, .. } => drop(reply.send(Err(problem()))),
                Ask::Inspect { replies } => self.tell(replies, Err(problem())),
            }
            return folded;
        }
        let mut folded = match ask {
            Ask::Execute { mut request, taken_at, reply } => {
                let span = tracing::info_span!(target: trace::TARGET, parent: None, "decide", stream = %self.stream);
                trace::step(&span, &mut request.traceparent);
                let deciding = self.execute(*request, taken_at, folded).instrument(span);
                let (result, folded) = self.in_time(deciding).await;
                // The caller may have given up waiting; the outcome stands all the same.
                let _ = reply.send(result);
                folded
            }
            Ask::Inspect { replies } => {
                let (result, folded) = self.in_time(self.inspect(folded)).await;
                self.tell(replies, result);
                folded
            }
        };
        // Only now: the answer is out.
        if let Some(folded) = &mut folded {
            self.environment.keep_snapshot(&self.stream, folded);
            if let Some(weigher) = self.environment.registry.weigher(self.stream.category.as_str()) {
                folded.weigh(weigher);
            }
        }
        folded
    }

    fn tell(&self, replies: Vec<Looking>, result: Result<Inspected<BoxState>, Problem>) {
        let decider = self.environment.registry.owner(self.stream.category.as_str());
        for reply in replies {
            let _ = reply.send(match (&result, &decider) {
                (Ok(Inspected { state, version, position }), Some(decider)) => {
                    Ok(Inspected { state: decider.clone_state(state), version: *version, position: *position })
                }
                (Ok(_), None) => Err(defect("a state without a decider")),
                (Err(problem), _) => Err(problem.clone()),
            });
        }
    }

    /// Ends what takes too long, so that the stream is free for those whose callers still wait.
    async fn in_time<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let ended = tokio::time::timeout_at(self.until, work).await;
        ended.unwrap_or_else(|_| (Err(outcome_unknown("the log did not answer in time")), None))
    }

    async fn inspect(&self, folded: Option<Folded>) -> Outcome<Inspected<BoxState>> {
        let category = self.stream.category.as_str();
        let Some(decider) = self.environment.registry.owner(category) else {
            return (Err(Problem::new(404, "unknown_category", format!("There is no category `{category}`."))), None);
        };
        // The bulk from any replica, in pages; the rest from the leader, one by one.
        let folded = match folded {
            Some(folded) => Ok(folded),
            None => self.catch_up(&*decider, None, Freshness::Any).await,
        };
        let folded = match folded {
            Ok(folded) => self.catch_up(&*decider, Some(folded), Freshness::Leader).await,
            Err(problem) => Err(problem),
        };
        let folded = match folded {
            Ok(folded) => folded,
            Err(problem) => return (Err(problem), None),
        };
        let state = decider.clone_state(&folded.state);
        (Ok(Inspected { state, version: folded.version, position: folded.position }), Some(folded))
    }

    async fn execute(&self, request: Request, taken_at: Timestamp, folded: Option<Folded>) -> Outcome<Answer> {
        let command = &request.command;
        let decider = match self.environment.registry.find(self.stream.category.as_str(), command, request.internal) {
            Ok(decider) => decider,
            Err(problem) => return (Err(problem), folded),
        };
        let given = request.id.is_some();
        let id = match request.id.clone() {
            Some(id) => id,
            None => match CommandId::new(&clock::fresh_id("cmd_")) {
                Ok(id) => id,
                Err(error) => return (Err(error.into()), folded),
            },
        };
        let mut folded = match folded {
            Some(folded) => folded,
            None => match self.catch_up(&*decider, None, Freshness::Any).await {
                Ok(folded) => folded,
                Err(problem) => return (Err(problem), None),
            },
        };
        let body: Option<serde_json::Value> = serde_json::from_slice(&request.body).ok();
        // Once in the log it could neither be read back nor stored in rows, and everything behind it would be parked.
        if let Some(complaint) = body.as_ref().and_then(storable::complaint_about) {
            let error = FieldError { pointer: String::new(), detail: complaint.to_owned() };
            return (Err(Problem::invalid(vec![error])), Some(folded));
        }
        let fingerprint = Fingerprint::of_parsed(command, &request.body, body.as_ref());
        if given {
            match self.accepted_before(&folded, &id, &fingerprint).await {
                Ok(None) => {}
                Ok(Some(answer)) => return (Ok(answer), Some(folded)),
                Err(problem) => return (Err(problem), Some(folded)),
            }
        }

        let stamp =
            Stamp { at: taken_at, id: id.clone(), stream: self.stream.clone(), principal: request.principal.clone() };
        let prepared = match decider.parse(command, &request.body, &stamp) {
            Ok(parsed) => match self.executor.get() {
                Ok(executor) => decider.prepare(parsed, &stamp, &executor).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            // Memory may be stale: another writer may have accepted this very command, and a fact it depended on may have
            // changed since. What was accepted is not refused later.
            Err(problem) if given => {
                let before = folded.position;
                folded = match self.catch_up(&*decider, Some(folded), Freshness::Leader).await {
                    Ok(folded) => folded,
                    Err(problem) => return (Err(problem), None),
                };
                let known = match folded.position == before {
                    true => Ok(None),
                    false => self.accepted_before(&folded, &id, &fingerprint).await,
                };
                return (known.and_then(|known| known.ok_or(problem)), Some(folded));
            }
            Err(problem) => return (Err(problem), Some(folded)),
        };

        // Only what the guard confirms is certain. A yes is confirmed by its append; a no, or a nothing, is decided once
        // more on a tail from the leader: memory may be stale, and so may the replica that a stream was loaded from.
        let mut fresh = false;
        // Whether an append of ours may yet arrive: then nothing may be said to be unwritten.
        let mut unsure = false;
        let mut explained = true;
        // Lost races are counted. A log without an answer is asked until the time is up: it may be electing a leader. So is one
        // that refuses for the sake of what it has not written yet.
        let mut conflicts = 0;
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(250));
        while conflicts <= self.environment.options.conflict_retries {
            let decision = check_version(&request, &folded).and_then(|()| decider.decide(&folded.state, &prepared));
            let nothing_to_write = decision.as_ref().map_or(true, |decision| decision.events.is_empty());
            if nothing_to_write && !fresh {
                let before = folded.position;
                folded = match self.catch_up(&*decider, Some(folded), Freshness::Leader).await {
                    Ok(folded) => folded,
                    Err(problem) => return (Err(problem), None),
                };
                fresh = true;
                if folded.position != before {
                    match self.accepted_before(&folded, &id, &fingerprint).await {
                        Ok(None) => continue,
                        Ok(Some(answer)) => return (Ok(answer), Some(folded)),
                        Err(problem) => return (Err(problem), Some(folded)),
                    }
                }
            }
            let decision = match decision {
                Ok(decision) => decision,
                Err(problem) => return (Err(problem), Some(folded)),
            };
            if decision.events.is_empty() {
                return (Ok(self.nothing_changed(&id, &folded)), Some(folded));
            }

            let draft = self.draft(&request, &id, &fingerprint, taken_at, &folded, decision.events.clone());
            let payload = Bytes::from(draft.to_bytes());
            let size = payload.len();
            match self.append(&draft, payload, folded.position).await {
                Ok(position) => {
                    let answer = Answer::to(&draft, position);
                    folded.state = decider.apply(folded.state, decision);
                    folded.bytes += size;
                    folded.advance(id.as_str(), answer.version, position);
                    return (Ok(answer), Some(folded));
                }
                Err(error @ (AppendError::Conflict | AppendError::Ambiguous(_))) => {
                    if matches!(error, AppendError::Ambiguous(_)) {
                        metrics::counter!(telemetry::APPEND_AMBIGUOUS_TOTAL).increment(1);
                        unsure = true;
                        backoff.wait().await;
                    }
                    let before = folded.position;
                    tracing::debug!(stream = %self.stream, %error, "reading the tail before deciding again");
                    folded = match self.catch_up(&*decider, Some(folded), Freshness::Leader).await {
                        Ok(folded) => folded,
                        Err(_) => return (Err(outcome_unknown("the log went away while it was being written")), None),
                    };
                    fresh = true;
                    match self.accepted_before(&folded, &id, &fingerprint).await {
                        Ok(None) if error != AppendError::Conflict => {}
                        Ok(None) if folded.position > before => {
                            metrics::counter!(telemetry::APPEND_CONFLICTS_TOTAL).increment(1);
                            conflicts += 1;
                        }
                        // Refused for what nobody can read yet: three replicas guard against an append in flight, too. It is no
                        // lost race until it has landed, and it may be one of ours whose answer was lost.
                        Ok(None) => {
                            let pause = backoff.next_delay();
                            if Instant::now() + pause >= self.until {
                                explained = false;
                                break;
                            }
                            tokio::time::sleep(pause).await;
                        }
                        // It was this very call that wrote it, so the answer is not a repeat of one given before.
                        Ok(Some(answer)) => return (Ok(Answer { repeated: false, ..answer }), Some(folded)),
                        // That problem says that nothing was written, and this very call may have written.
                        Err(problem) if problem.is_transient() => {
                            return (
                                Err(outcome_unknown("the log went away while it was being written")),
                                Some(folded),
                            );
                        }
                        Err(problem) => return (Err(problem), Some(folded)),
                    }
                }
                Err(error) => {
                    let pause = backoff.next_delay();
                    let for_now = matches!(error, AppendError::Unavailable(_));
                    if !for_now || Instant::now() + pause >= self.until {
                        return (Err(not_appended(&self.stream, &error, unsure)), Some(folded));
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
        if unsure {
            return (Err(outcome_unknown("the log did not say")), None);
        }
        let detail = "Others keep changing this stream; nothing was written. Ask again with the same command id.";
        // Perhaps the log was restored to an earlier moment behind our back: then what is remembered is what is wrong.
        (Err(Problem::new(409, "contended", detail).retry_after(250)), explained.then_some(folded))
    }

    fn nothing_changed(&self, id: &CommandId, folded: &Folded) -> Answer {
        Answer {
            accepted: true,
            command_id: id.clone(),
            stream: self.stream.to_string(),
            position: folded.position,
            version: folded.version,
            events: Vec::new(),
            repeated: false,
        }
    }

    fn draft(
        &self,
        request: &Request,
        id: &CommandId,
        fingerprint: &Fingerprint,
        at: Timestamp,
        folded: &Folded,
        events: Vec<NewEvent>,
    ) -> Draft {
        let own = || id.as_str().to_owned();
        Draft {
            stream: self.stream.clone(),
            id: id.clone(),
            command: request.command.clone(),
            fingerprint: fingerprint.clone(),
            version_before: folded.version,
            at,
            actor: request.principal.clone(),
            correlation: request.correlation.clone().unwrap_or_else(own),
            causation: request.causation.clone().unwrap_or_else(own),
            traceparent: request.traceparent.clone(),
            events,
        }
    }

    async fn append(&self, draft: &Draft, payload: Bytes, expected: Position) -> Result<Position, AppendError> {
        let mut types: Vec<&str> = draft.events.iter().map(|event| event.type_name).collect();
        types.dedup();
        let append =
            Append { stream: self.stream.clone(), id: draft.id.clone(), expected, payload, types: types.join(",") };
        self.environment.log.append(append).instrument(tracing::info_span!(target: trace::TARGET, "append")).await
    }

    /// Folds what the log has beyond `folded`.
    async fn catch_up(
        &self,
        decider: &dyn ErasedDecider,
        folded: Option<Folded>,
        fresh: Freshness,
    ) -> Result<Folded, Problem> {
        let mut cold = folded.is_none();
        let mut folded =
            folded.unwrap_or_else(|| Folded::new(decider.initial(), self.environment.options.ids_per_stream));
        loop {
            let page = self.environment.log.read_stream(&self.stream, folded.position, fresh).await;
            let page = page.map_err(|error| log_unreadable(&error))?;
            for recorded in &page.commits {
                folded = self.fold(decider, folded, recorded)?;
            }
            if !page.more {
                return Ok(folded);
            }
            // A stream that is longer than a page may have a snapshot; a new or short one is not worth the question.
            if std::mem::take(&mut cold)
                && let Some(further) = self.environment.load_snapshot(&self.stream, folded.version).await
            {
                folded = further;
            }
        }
    }

    fn fold(&self, decider: &dyn ErasedDecider, mut folded: Folded, recorded: &Recorded) -> Result<Folded, Problem> {
        let unreadable = |reason| unreadable_history(&self.stream, recorded.position, reason);
        let Some((_, commit)) = recorded.history().map_err(unreadable)? else {
            // The guard counts it, the history does not.
            folded.position = recorded.position;
            return Ok(folded);
        };
        if commit.first().streamversion != folded.version + 1 {
            return Err(unreadable(format!("version {} follows {}", commit.first().streamversion, folded.version)));
        }
        folded.state = decider.fold(folded.state, &commit).map_err(|error| unreadable(error.to_string()))?;
        folded.bytes += recorded.payload.len();
        folded.advance_past(&commit, recorded.position);
        Ok(folded)
    }

    /// The answer to a command id that has been accepted before, however long ago.
    async fn accepted_before(
        &self,
        folded: &Folded,
        id: &CommandId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Answer>, Problem> {
        for position in folded.recent.candidates(id.as_str()) {
            if let Some(answer) = self.answer_at(position, id, fingerprint).await? {
                return Ok(Some(answer));
            }
        }
        let Some(oldest_known) = folded.recent.forgotten_before() else { return Ok(None) };
        let found = self.environment.index.find(&self.stream, id).await.unwrap_or_else(|error| {
            tracing::warn!(%error, stream = %self.stream, "the index of commits is away; searching the log instead");
            Lookup::Absent { covers: Position::START }
        });
        match found {
            Lookup::Found(position) => self.answer_at(position, id, fingerprint).await,
            Lookup::Absent { covers } if covers >= oldest_known => Ok(None),
            Lookup::Absent { covers } => self.search(covers, oldest_known, id, fingerprint).await,
        }
    }

    /// Looks through the part of the history that neither memory nor index covers.
    async fn search(
        &self,
        mut after: Position,
        before: Position,
        id: &CommandId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Answer>, Problem> {
        let mut fresh = Freshness::Any;
        loop {
            let page = self.environment.log.read_stream(&self.stream, after, fresh).await;
            let page = page.map_err(|error| log_unreadable(&error))?;
            for recorded in &page.commits {
                if recorded.position >= before {
                    return Ok(None);
                }
                if let Some(answer) = self.answer_of(recorded, id, fingerprint)? {
                    return Ok(Some(answer));
                }
                after = recorded.position;
            }
            match fresh {
                _ if page.more => {}
                // It ends before a commit that is known to be there: that replica is behind. The leader is not.
                Freshness::Any => fresh = Freshness::Leader,
                Freshness::Leader => return Ok(None),
            }
        }
    }

    async fn answer_at(
        &self,
        position: Position,
        id: &CommandId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Answer>, Problem> {
        let recorded = self.environment.log.at(position).await.map_err(|error| log_unreadable(&error))?;
        recorded.map_or(Ok(None), |recorded| self.answer_of(&recorded, id, fingerprint))
    }

    fn answer_of(
        &self,
        recorded: &Recorded,
        id: &CommandId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Answer>, Problem> {
        let Ok(Some((stream, commit))) = recorded.history() else { return Ok(None) };
        if commit.id() != id.as_str() || *stream != self.stream {
            return Ok(None);
        }
        if commit.first().commandhash != fingerprint.as_str() {
            let detail = format!(
                "The command id `{id}` was used on this stream for another command (`{}`, or another body). Use a new id.",
                commit.first().command
            );
            return Err(Problem::new(422, "command_id_reused", detail));
        }
        let answer = Answer::of(&self.stream, id, &commit, recorded.position);
        Ok(Some(Answer { repeated: true, ..answer }))
    }
}

/// What a caller hears of an append that the log did not take.
fn not_appended(stream: &StreamName, error: &AppendError, unsure: bool) -> Problem {
    tracing::warn!(%stream, %error, "a commit was not appended");
    match error {
        _ if unsure => outcome_unknown("the log did not say, and is away now"),
        AppendError::TooLarge { .. } => {
            let detail = format!("What this command leads to does not fit: {error}. Send large data by reference.");
            Problem::new(413, "too_large", detail)
        }
        AppendError::Refused(reason) => Problem::new(
            507,
            "log_refused",
            format!("The log does not take this commit: {reason}. Nothing was written."),
        ),
        _ => Problem::unavailable("The log cannot be reached; nothing was written.", 1_000),
    }
}

fn check_version(request: &Request, folded: &Folded) -> Result<(), Problem> {
    match request.expected_version {
        Some(expected) if expected != folded.version => {
            let detail =
                format!("The stream has version {}, not {expected}; read it again and decide anew.", folded.version);
            Err(Problem::new(409, "version_conflict", detail))
        }
        _ => Ok(()),
    }
}

pub(crate) fn unreadable_history(stream: &StreamName, position: Position, reason: String) -> Problem {
    tracing::error!(%stream, position = position.sequence(), reason, "unreadable history");
    let detail = format!(
        "The history of `{stream}` cannot be read at {position}: {reason}. Nothing can be decided on it until that is fixed."
    );
    Problem::new(500, "unreadable_history", detail)
}

pub(crate) fn log_unreadable(error: &LogError) -> Problem {
    tracing::warn!(%error, "the log could not be read");
    Problem::unavailable("The log cannot be read right now; nothing was written.", 1_000)
}
