//! What happens to whole processes: they die, are stopped by a signal and go on, are restarted; and people release what was
//! parked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::instance::{Instance, Living};
use crate::rows;
use crate::world::World;

/// Starts instances and restarts them.
pub(crate) struct Chaos {
    world: Arc<World>,
    living: Living,
    started: u64,
}

impl Chaos {
    pub(crate) fn new(world: &Arc<World>, living: &Living) -> Self {
        let mut chaos = Self { world: Arc::clone(world), living: living.clone(), started: 0 };
        for slot in 0..world.faults.instances {
            chaos.start(slot as usize);
        }
        chaos
    }

    fn start(&mut self, slot: usize) {
        self.started += 1;
        self.living.put(slot, Instance::start(&self.world, self.started));
    }

    /// Makes trouble for as long as the history wants it, then heals the world: nothing goes wrong any more, and every
    /// instance is up.
    pub(crate) async fn run(mut self) {
        let (world, living) = (Arc::clone(&self.world), self.living.clone());
        let until = tokio::time::Instant::now() + Duration::from_millis(world.faults.trouble_ms);
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(world.between_ms(50, 1_200)).await;
            let slot = world.below(world.faults.instances) as usize;
            let instance = Arc::clone(&living.all()[slot]);
            match world.below(12) {
                0 | 1 => instance.gate.kill(),
                2 | 3 => instance.gate.kill_after(world.below(60)),
                4 => instance.gate.stall(world.between_ms(100, 4_000)),
                5 if !instance.gate.is_dead() => {
                    // The next one begins while this one still finishes: a rolling restart.
                    self.start(slot);
                    tokio::spawn(async move { instance.stop().await });
                }
                6 => {
                    let garbage = Bytes::from_static(b"a misdirected answer");
                    let position = world.log.append_foreign(&world.door(), garbage);
                    world.note(format_args!("   log: {position} is foreign"));
                }
                7 => release(&world),
                _ => world.index.catch_up(&world.log).await.unwrap(),
            }
            self.restart(700);
        }
        world.note(format_args!("the world is healed"));
        world.state().healed = true;
        self.restart(1_000);
        world.index.catch_up(&world.log).await.unwrap();
        loop {
            release(&world);
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.restart(1_000);
        }
    }

    fn restart(&mut self, per_mille: u64) {
        for (slot, instance) in self.living.all().iter().enumerate() {
            if instance.gate.is_dead() && self.world.below(1_000) < per_mille {
                self.start(slot);
            }
        }
    }
}

/// What people do who want everything handled that was set aside.
fn release(world: &World) {
    let tables = &mut *world.rows.tables();
    tables.released.extend(tables.parked.values().map(|parked| parked.subject.clone()));
    for consumer in CONSUMERS {
        for parked in world.effects.parked(consumer) {
            world.effects.release(consumer, &parked.subject);
        }
        for (row, state) in world.effects.effects(consumer) {
            if state == runtime::EffectState::Parked {
                world.effects.revive(consumer, &row.stream, &row.name);
            }
        }
    }
}

/// Whose record of effects there is.
pub(crate) const CONSUMERS: [&str; 2] = ["bell", "counting"];

/// What is not yet at rest; empty when the world has settled.
pub(crate) async fn unsettled(world: &World) -> Vec<String> {
    use runtime::{EffectState, Log};
    let head = world.log.head().await.unwrap();
    let mut open = Vec::new();
    {
        let state = world.state();
        if state.late_writes > 0 {
            open.push(format!("{} writes are on their way", state.late_writes));
        }
        let tables = world.rows.tables();
        if tables.checkpoint != head {
            open.push(format!("{} is at {}, the log at {head}", rows::NAME, tables.checkpoint));
        }
        open.extend(tables.parked.values().map(|parked| format!("{}: {parked:?}", rows::NAME)));
    }
    for consumer in CONSUMERS {
        let checkpoint = world.effects.checkpoint(consumer);
        if checkpoint != head {
            open.push(format!("{consumer} is at {checkpoint}, the log at {head}"));
        }
        open.extend(world.effects.parked(consumer).iter().map(|parked| format!("{consumer}: {parked:?}")));
        let effects = world.effects.effects(consumer);
        let undone = effects.iter().filter(|(_, state)| *state != EffectState::Done);
        open.extend(undone.map(|(row, state)| format!("{} of {} is {state:?}", row.name, row.stream)));
    }
    open
}
