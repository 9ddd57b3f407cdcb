//! What is to be done when, and what is being done: the part of the record of effects that a runner has in memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use kernel::{StreamName, Timestamp};

use super::News;
use super::perform::Finished;
use crate::lease::Term;
use crate::{EffectRow, EffectState, Settlement, clock};

/// Longest sleep. The monotonic clock stands still while a machine is suspended; due times do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// So many keys without an effect are not worth looking for.
const SLACK: usize = 1_024;

type Key = (StreamName, String);

fn key_of(row: &EffectRow) -> Key {
    (row.stream.clone(), row.name.clone())
}

/// An effect and the event that called for it: a later event may call for the same effect again.
pub(super) type Call = (Key, String);

pub(super) fn call_of(row: &EffectRow) -> Call {
    (key_of(row), row.event.clone())
}

/// A call that is being done.
struct InHand {
    /// The event that called.
    event: String,
    /// In which it was begun.
    epoch: u64,
    /// How often it had been put off, as the store knows it, while the store has it scheduled. `None` when it has not, or we
    /// cannot say: cancelled, called for anew by a later event, or settled by another owner. Then it is not tried again.
    scheduled: Option<u32>,
}

/// What is to be done when: what the store has scheduled, as far as we have heard of it. The heap and the queue hold keys, the
/// map the effects: a cancelled timer leaves the map, and its key is passed over when it comes up.
#[derive(Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Reverse<(Timestamp, Key)>>,
    /// Of each effect the newest call.
    waiting: HashMap<Key, EffectRow>,
    /// Outward effects whose time has come, waiting for a permit of their kind.
    outward: VecDeque<Call>,
    /// Being done: of each effect mostly one call, and older ones that are not done yet.
    in_hand: HashMap<Key, Vec<InHand>>,
    /// The term in which we own the consumer, when we do.
    pub(super) owner: Option<Term>,
    /// Ended since the ownership was last in doubt: the store's list may be older than that. With the epoch in which it was
    /// settled, and whether it is done: the store takes any other word only from its newest owner.
    ended: HashMap<Call, (u64, bool)>,
}

impl Agenda {
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::OwnerUnknown(heard) => {
                let _ = heard.send(());
                self.owner = None;
                self.due.clear();
                self.waiting.clear();
                self.outward.clear();
                self.ended.clear();
                // Another owner may settle what is in hand here. If we are the owner once more, the store says what is left.
                self.in_hand.values_mut().flatten().for_each(|call| call.scheduled = None);
            }
            News::Owner { term, rows } => {
                self.owner = Some(term);
                let ended = std::mem::take(&mut self.ended);
                let has_ended = |call: &Call| ended.get(call).is_some_and(|(of, done)| *done || *of == term.epoch);
                rows.into_iter().filter(|row| !has_ended(&call_of(row))).for_each(|row| self.add(row));
            }
            News::Recorded { rows, cancelled } => {
                for key in cancelled {
                    self.waiting.remove(&key);
                    self.in_hand.get_mut(&key).into_iter().flatten().for_each(|call| call.scheduled = None);
                }
                rows.into_iter().for_each(|row| self.add(row));
                self.compact();
            }
        }
    }

    /// Takes in what the store has scheduled: of each effect one call, so any other one is history.
    fn add(&mut self, row: EffectRow) {
        let key = key_of(&row);
        let mut is_in_hand = false;
        for call in self.in_hand.get_mut(&key).into_iter().flatten() {
            let same = call.event == row.event;
            call.scheduled = same.then_some(row.attempts);
            is_in_hand |= same;
        }
        if is_in_hand {
            // One try at a time; how this one ends says what comes next.
            self.waiting.remove(&key);
        } else {
            self.due.push(Reverse((row.due, key.clone())));
            self.waiting.insert(key, row);
        }
    }

    /// Lets go of the keys of what has been cancelled: most deadlines are, and some are a month ahead.
    fn compact(&mut self) {
        let Self { due, waiting, outward, .. } = self;
        if due.len() > 2 * waiting.len() + SLACK {
            due.retain(|Reverse((at, key))| waiting.get(key).is_some_and(|row| row.due == *at));
        }
        if outward.len() > 2 * waiting.len() + SLACK {
            outward.retain(|(key, event)| waiting.get(key).is_some_and(|row| row.event == *event));
        }
    }

    /// The next effect whose time has come.
    pub(super) fn take_due(&mut self) -> Option<EffectRow> {
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= clock::now()
        {
            let Reverse((at, key)) = self.due.pop()?;
            // A key that was put off meanwhile has a later entry of its own.
            if self.waiting.get(&key).is_some_and(|row| row.due == at) {
                return self.waiting.remove(&key);
            }
        }
        None
    }

    /// Keeps an outward effect until there is a permit.
    pub(super) fn queue(&mut self, row: EffectRow) {
        self.outward.push_back(call_of(&row));
        self.waiting.insert(key_of(&row), row);
    }

    /// The next outward effect that waits for a permit.
    pub(super) fn take_outward(&mut self) -> Option<EffectRow> {
        while let Some((key, event)) = self.outward.pop_front() {
            // One that was put off meanwhile comes back when it is due.
            if self.waiting.get(&key).is_some_and(|row| row.event == event && row.due <= clock::now()) {
                return self.waiting.remove(&key);
            }
        }
        None
    }

    pub(super) fn until_next(&self) -> Option<Duration> {
        let Reverse((at, _)) = self.due.peek()?;
        Some((*at - clock::now()).to_std().unwrap_or_default().min(LONGEST_SLEEP))
    }

    /// Notes that an effect is being done.
    pub(super) fn begin(&mut self, (key, event): Call, attempts: u32) {
        let epoch = self.owner.map_or(0, |term| term.epoch);
        self.in_hand.entry(key).or_default().push(InHand { event, epoch, scheduled: Some(attempts) });
    }

    /// What was in hand is not any more.
    fn put_down(&mut self, (key, event): &Call) -> Option<InHand> {
        let calls = self.in_hand.get_mut(key)?;
        let call = calls.iter().position(|call| call.event == *event).map(|place| calls.swap_remove(place));
        if calls.is_empty() {
            self.in_hand.remove(key);
        }
        call
    }

    /// Ends a try, and says in which epoch to settle it. While the ownership is in doubt that is the one in which it was
    /// begun: if nobody has come since, its outcome counts, whatever it is.
    pub(super) fn end(&mut self, finished: Finished) -> (u64, Settlement) {
        let Finished { settlement, again } = finished;
        let call = ((settlement.stream.clone(), settlement.name.clone()), settlement.event.clone());
        let (begun, scheduled) = self.put_down(&call).map_or((0, None), |call| (call.epoch, call.scheduled));
        let epoch = self.owner.map_or(begun, |term| term.epoch);
        match (again, scheduled) {
            (Some(row), Some(attempts)) => self.add(EffectRow { attempts: attempts + 1, ..row }),
            // The store has other plans, and takes no notice. Who owns the consumer by then will find them there.
            (Some(_), None) => {}
            (None, _) if self.owner.is_none() => {
                self.ended.insert(call, (epoch, settlement.state == EffectState::Done));
            }
            (None, _) => {}
        }
        (epoch, settlement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> EffectRow {
        EffectRow {
            consumer: "alarms".to_owned(),
            stream: StreamName::new("dev", "run", &format!("r{n}")).expect("a name"),
            name: "deadline".to_owned(),
            event: format!("c{n}.0"),
            correlation: "k".to_owned(),
            traceparent: None,
            due: clock::now() + Duration::from_secs(86_400 * 30),
            request: serde_json::Value::Null,
            attempts: 0,
        }
    }

    #[test]
    fn deadlines_that_were_cancelled_do_not_stay_for_a_month() {
        let mut agenda = Agenda::default();
        for n in 0..50_000 {
            agenda.hear(News::Recorded { rows: vec![row(n)], cancelled: Vec::new() });
            if n % 100 != 0 {
                agenda.hear(News::Recorded { rows: Vec::new(), cancelled: vec![key_of(&row(n))] });
            }
        }
        assert_eq!(agenda.waiting.len(), 500);
        assert!(agenda.due.len() <= 2 * 500 + SLACK + 1, "{} keys for 500 effects", agenda.due.len());
    }
}
