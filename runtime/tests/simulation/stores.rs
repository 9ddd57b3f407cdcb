//! The record of effects and the record of leases as one instance sees them: a database that is away, whose answers get
//! lost, and that may take the living for dead.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::Position;
use runtime::consume::{Begin, Released};
use runtime::lease::{Claim, LeaseStore, Turn};
use runtime::{EffectRow, EffectStore, Parked, Planned, Settlement, StoreError};

use crate::faults::{Fault, Mutation};
use crate::gate::{Gate, step};

/// A call to a database on behalf of a consumer, with a line for the trace.
macro_rules! ask {
    ($gate:expr, $consumer:expr, $($line:tt)*) => {{
        $gate.enters(format_args!("{}: {}", $consumer, format_args!($($line)*)));
        $gate.asks().await
    }};
}
pub(crate) use ask;

fn down() -> StoreError {
    StoreError::Transient("the database is away".to_owned())
}

impl Gate {
    /// A call to a database arrives. Use [`ask!`].
    pub(crate) async fn asks(&self) -> Result<(), StoreError> {
        self.passes().await;
        if self.world.strikes(Fault::StoreDown) { Err(down()) } else { Ok(()) }
    }

    /// Its answer comes back, or not.
    pub(crate) async fn hear<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        step!(self, "hears {}", if result.is_ok() { "yes" } else { "no" });
        if self.world.strikes(Fault::StoreReplyLost) { Err(down()) } else { result }
    }
}

pub(crate) struct SimEffects {
    pub(crate) gate: Arc<Gate>,
}

/// The record of leases as one instance sees it.
pub(crate) struct SimLeases {
    pub(crate) gate: Arc<Gate>,
}

#[async_trait]
impl LeaseStore for SimLeases {
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError> {
        ask!(self.gate, "leases", "takes its turn")?;
        if self.gate.world.strikes(Fault::TakenOver) {
            // The database takes it for dead, as it does when a connection breaks: it goes on working until it is told.
            self.gate.note(format_args!("leases: is buried alive"));
            self.gate.world.leases.bury(&claim.instance);
            return Err(down());
        }
        let turn = self.gate.world.leases.turn(claim).await;
        if let Ok(turn) = &turn {
            self.gate.note(format_args!("   leases: {:?}", turn.held));
        }
        self.gate.hear(turn).await
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        ask!(self.gate, "leases", "says good-bye")?;
        self.gate.world.leases.leave(instance).await
    }
}

#[async_trait]
impl EffectStore for SimEffects {
    async fn begin(&self, consumer: &str, log: &str, epoch: u64) -> Result<Begin, StoreError> {
        ask!(self.gate, consumer, "begins in epoch {epoch}")?;
        let begin = self.gate.world.effects.begin(consumer, log, epoch).await;
        self.gate.hear(begin).await
    }

    async fn record(
        &self,
        consumer: &str,
        epoch: u64,
        from: Position,
        to: Position,
        plans: &[Planned],
        parked: &[Parked],
    ) -> Result<(), StoreError> {
        let (gate, world) = (&self.gate, &self.gate.world);
        ask!(gate, consumer, "records {} plans, {from} to {to}, {} parked", plans.len(), parked.len())?;
        let forgets = world.mutation == Mutation::CheckpointWithoutEffects && !world.healed() && world.below(10) == 0;
        let plans = if forgets { &[] } else { plans };
        let result = world.effects.record(consumer, epoch, from, to, plans, parked).await;
        gate.hear(result).await
    }

    async fn pending(&self, consumer: &str) -> Result<Vec<EffectRow>, StoreError> {
        ask!(self.gate, consumer, "lists what is to be done")?;
        let result = self.gate.world.effects.pending(consumer).await;
        self.gate.hear(result).await
    }

    async fn settle(&self, consumer: &str, epoch: u64, settlements: &[Settlement]) -> Result<(), StoreError> {
        ask!(self.gate, consumer, "settles {} in epoch {epoch}", settlements.len())?;
        for settlement in settlements {
            let Settlement { stream, name, state, note, .. } = settlement;
            self.gate.note(format_args!("   {stream} {name}: {state:?}, {note}"));
        }
        let result = self.gate.world.effects.settle(consumer, epoch, settlements).await;
        self.gate.hear(result).await
    }

    async fn released(&self, consumer: &str, epoch: u64) -> Result<Vec<Released>, StoreError> {
        ask!(self.gate, consumer, "looks for what is released")?;
        self.gate.world.effects.released(consumer, epoch).await
    }

    async fn unpark(
        &self,
        consumer: &str,
        epoch: u64,
        position: Position,
        plans: &[Planned],
    ) -> Result<(), StoreError> {
        ask!(self.gate, consumer, "takes {position} out of the lot")?;
        let result = self.gate.world.effects.unpark(consumer, epoch, position, plans).await;
        self.gate.hear(result).await
    }

    async fn park_again(&self, consumer: &str, epoch: u64, position: Position, reason: &str) -> Result<(), StoreError> {
        ask!(self.gate, consumer, "parks {position} again: {reason}")?;
        self.gate.world.effects.park_again(consumer, epoch, position, reason).await
    }

    async fn revived(&self, consumer: &str, epoch: u64) -> Result<Vec<EffectRow>, StoreError> {
        ask!(self.gate, consumer, "looks for what is revived")?;
        let revived = self.gate.world.effects.revived(consumer, epoch).await;
        for row in revived.iter().flatten() {
            self.gate.note(format_args!("   {} {}: revived", row.stream, row.name));
        }
        revived
    }
}
