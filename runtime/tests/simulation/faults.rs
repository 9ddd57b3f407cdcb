//! What goes wrong in a history, and how often.

use crate::random::Random;

/// One way in which the world fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An append never reaches the log, and its caller knows.
    LostRequest,
    /// An append is taken, its answer is lost.
    LostReply,
    /// An append arrives when its caller has given up.
    LateWrite,
    /// An append is refused for the sake of another one, which is in flight and cannot be read, and may never land.
    InFlight,
    /// A read fails.
    FailedRead,
    /// A replica answers that is behind.
    StaleRead,
    /// The walk along the log ends, repeats a message, or leaves one out.
    BrokenRead,
    /// A store does nothing and says so.
    StoreDown,
    /// A store does it and its answer is lost.
    StoreReplyLost,
    /// The record of leases takes a living instance for dead, and gives away what it holds.
    TakenOver,
    /// The world does not do an effect: try again, or look at it.
    EffectFails,
    /// A request is delivered twice, to two instances.
    DeliveredTwice,
}

/// How often each of them happens in one history.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    per_mille: [u64; 12],
    /// The longest that a single step takes.
    pub(crate) slowest_ms: u64,
    pub(crate) instances: u64,
    pub(crate) doors: u64,
    pub(crate) clients: u64,
    pub(crate) commands_per_client: u64,
    pub(crate) queued: u64,
    /// For how long things go wrong.
    pub(crate) trouble_ms: u64,
}

impl Faults {
    /// Swarm testing (Groce and others, 2012): each history leaves out about half of the faults. What remains reaches
    /// further than a little of everything would, because one fault often hides another.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut per_mille = [0; 12];
        for rate in &mut per_mille {
            let (wanted, some, many) = (random.chance(500), random.between(5, 60), random.between(60, 300));
            *rate = if !wanted {
                0
            } else if random.chance(700) {
                some
            } else {
                many
            };
        }
        Self {
            per_mille,
            slowest_ms: [50, 500, 3_000][random.below(3) as usize],
            instances: random.between(1, 3),
            doors: random.between(1, 3),
            clients: random.between(2, 4),
            commands_per_client: random.between(4, 10),
            queued: random.between(0, 6),
            trouble_ms: random.between(1_000, 12_000),
        }
    }

    pub(crate) fn per_mille(&self, fault: Fault) -> u64 {
        self.per_mille[fault as usize]
    }
}

/// A defect that is put into an adapter on purpose, to see whether it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// None: the adapters keep their contracts.
    None,
    /// The log takes every append, whatever stands at the end of its stream.
    LogWithoutGuard,
    /// The log acknowledges an append now and then without keeping it.
    ForgetfulLog,
    /// The index claims to cover everything and to know nothing.
    LyingIndex,
    /// Rows are written, and now and then the checkpoint is not.
    RowsWithoutCheckpoint,
    /// The checkpoint moves, and now and then the effects are not recorded.
    CheckpointWithoutEffects,
    /// Reports lose their command id on the way.
    ReportsWithoutId,
    /// Deliveries are numbered as if nothing were missing.
    HiddenHoles,
}

impl Mutation {
    pub(crate) const ALL: [Self; 7] = [
        Self::LogWithoutGuard,
        Self::ForgetfulLog,
        Self::LyingIndex,
        Self::RowsWithoutCheckpoint,
        Self::CheckpointWithoutEffects,
        Self::ReportsWithoutId,
        Self::HiddenHoles,
    ];
}
