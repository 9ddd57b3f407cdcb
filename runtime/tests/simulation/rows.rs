//! A projection: rows about doors, with a checkpoint that moves together with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kernel::Position;
use runtime::consume::{Begin, HandleError, Handler, Released};
use runtime::{Parked, ParkedState, Recorded, StoreError};

use crate::domain::{Fact, POISON_FOR_ROWS};
use crate::faults::Mutation;
use crate::gate::Gate;
use crate::stores::ask;

pub(crate) const NAME: &str = "rows";

/// What is known of one door. `opened` counts, so that an event applied twice shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: u64,
    pub(crate) opened: u64,
    pub(crate) open: BTreeMap<u64, u64>,
}

impl Row {
    pub(crate) fn apply(&mut self, version: u64, fact: &Fact) {
        self.version = version;
        let (key, serial) = (fact.data["key"].as_u64().unwrap_or_default(), fact.data["serial"].as_u64());
        match fact.kind {
            "door.opened" => {
                self.opened += 1;
                self.open.insert(key, serial.unwrap_or_default());
            }
            _ => drop(self.open.remove(&key)),
        }
    }
}

/// The database's side.
#[derive(Default)]
pub(crate) struct Rows(Mutex<Tables>);

#[derive(Default)]
pub(crate) struct Tables {
    /// Of the newest owner: older ones cannot write any more.
    epoch: u64,
    pub(crate) checkpoint: Position,
    pub(crate) doors: BTreeMap<String, Row>,
    pub(crate) parked: BTreeMap<Position, Parked>,
    pub(crate) released: BTreeSet<String>,
}

impl Tables {
    fn check(&self, epoch: u64) -> Result<(), StoreError> {
        let lost = || StoreError::Lost(format!("its epoch is {}, ours is {epoch}", self.epoch));
        if epoch < self.epoch { Err(lost()) } else { Ok(()) }
    }
}

impl Rows {
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instance's side.
pub(crate) struct SimRows {
    pub(crate) gate: Arc<Gate>,
    pub(crate) epoch: u64,
}

impl SimRows {
    /// Folds commits into copies of the rows.
    fn fold(&self, commits: &[&Recorded]) -> Result<BTreeMap<String, Row>, HandleError> {
        let mut doors = self.gate.world.rows.tables().doors.clone();
        for recorded in commits {
            let Some((stream, commit)) = recorded.history().map_err(HandleError::Poison)? else { continue };
            if stream.category.as_str() != "door" {
                continue;
            }
            let row = doors.entry(stream.to_string()).or_default();
            for event in &commit.events {
                let fact: Fact = event.decode().map_err(|error| HandleError::Poison(error.to_string()))?;
                if fact.data["key"].as_u64().is_some_and(|key| key % 8 == POISON_FOR_ROWS) && !self.gate.world.healed()
                {
                    return Err(HandleError::Poison(format!("{} cannot be projected", recorded.position)));
                }
                row.apply(event.streamversion, &fact);
            }
        }
        Ok(doors)
    }
}

#[async_trait]
impl Handler for SimRows {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn begin(&mut self, _: &str, epoch: u64) -> Result<Begin, HandleError> {
        ask!(self.gate, NAME, "begins in epoch {epoch}")?;
        self.epoch = epoch;
        let begin = {
            let tables = &mut *self.gate.world.rows.tables();
            tables.check(epoch).map(|()| {
                tables.epoch = epoch;
                let parked = tables.parked.values().map(|parked| parked.subject.clone()).collect();
                Begin { checkpoint: tables.checkpoint, parked }
            })
        };
        Ok(self.gate.hear(begin).await?)
    }

    async fn handle(
        &mut self,
        from: Position,
        to: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError> {
        let (gate, world) = (&self.gate, &self.gate.world);
        ask!(gate, NAME, "projects {} commits, {from} to {to}, {} parked", commits.len(), parked.len())?;
        let doors = self.fold(commits)?;
        let result = {
            let torn = world.mutation == Mutation::RowsWithoutCheckpoint && !world.healed() && world.below(10) == 0;
            let mut tables = world.rows.tables();
            if let Err(lost) = tables.check(self.epoch) {
                Err(lost)
            } else if tables.checkpoint != from {
                Err(StoreError::Lost(format!("the checkpoint is at {}, not {from}", tables.checkpoint)))
            } else {
                tables.doors = doors;
                tables.parked.extend(parked.iter().map(|parked| (parked.position, parked.clone())));
                tables.checkpoint = if torn { from } else { to };
                if torn { Err(StoreError::Transient("torn".to_owned())) } else { Ok(()) }
            }
        };
        Ok(gate.hear(result).await?)
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        ask!(self.gate, NAME, "looks for what is released")?;
        let mut tables = self.gate.world.rows.tables();
        let subjects = std::mem::take(&mut tables.released);
        let of = |subject: &String| {
            tables.parked.values().filter(|parked| parked.subject == *subject).map(|parked| parked.position).collect()
        };
        Ok(subjects.into_iter().map(|subject| Released { positions: of(&subject), subject }).collect())
    }

    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError> {
        ask!(self.gate, NAME, "projects {}, which was parked", commit.position)?;
        let doors = self.fold(&[commit])?;
        {
            let mut tables = self.gate.world.rows.tables();
            tables.check(self.epoch)?;
            // A repeat, because the answer to the first time was lost, finds it gone.
            if tables.parked.remove(&commit.position).is_some() {
                tables.doors = doors;
            }
        }
        Ok(self.gate.hear(Ok(())).await?)
    }

    async fn park_again(&mut self, position: Position, reason: &str) -> Result<(), HandleError> {
        ask!(self.gate, NAME, "parks {position} again")?;
        if let Some(parked) = self.gate.world.rows.tables().parked.get_mut(&position) {
            parked.state = ParkedState::Cause;
            parked.reason = reason.to_owned();
        }
        Ok(())
    }
}
