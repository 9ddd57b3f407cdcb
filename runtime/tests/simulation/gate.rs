//! The gate of an instance: everything that a process has to do with the world goes through it, both ways.
//!
//! Killing a process is closing its gate. No call gets out any more, no answer gets in, and every task of the instance
//! waits for ever at the next port it comes to: for everybody else that is exactly what a dead process is, and between two
//! ports nothing that it does can be seen. A gate is closed at a moment of the world's choosing, or by a fuse after so many
//! steps: each call is two steps, before its effect and after it, so both "asked and never heard" and "never asked" come
//! up at every port. A restart is a new instance with a new gate and an empty memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::world::World;

/// One step through a gate, with a line for the trace. (The line's arguments must not live across the await.)
macro_rules! step {
    ($gate:expr, $($line:tt)*) => {{
        $gate.enters(format_args!($($line)*));
        $gate.passes().await
    }};
}
pub(crate) use step;

pub(crate) struct Gate {
    pub(crate) world: Arc<World>,
    /// Unique among all instances of the history.
    pub(crate) instance: u64,
    dead: AtomicBool,
    /// Steps until it dies by itself.
    fuse: AtomicU64,
    /// Milliseconds since `began` until which the process stands still, as if stopped by a signal.
    stalled_until_ms: AtomicU64,
    began: Instant,
    died: Notify,
}

impl Gate {
    pub(crate) fn new(world: &Arc<World>, instance: u64) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            instance,
            dead: AtomicBool::new(false),
            fuse: AtomicU64::new(u64::MAX),
            stalled_until_ms: AtomicU64::new(0),
            began: Instant::now(),
            died: Notify::new(),
        })
    }

    /// What the record of leases calls it.
    pub(crate) fn name(&self) -> String {
        format!("instance_{}", self.instance)
    }

    pub(crate) fn kill(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.note(format_args!("dies"));
            // A dead process's connection breaks, mostly at once; of a dead machine's nobody hears, and its leases run out.
            if self.world.below(4) > 0 {
                self.world.leases.bury(&self.name());
            }
            self.died.notify_waiters();
        }
    }

    pub(crate) fn kill_after(&self, steps: u64) {
        self.fuse.store(steps, Ordering::Relaxed);
    }

    pub(crate) fn stall(&self, pause: Duration) {
        self.note(format_args!("stands still for {} ms", pause.as_millis()));
        let until = self.began.elapsed() + pause;
        self.stalled_until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Ends when the instance is dead.
    pub(crate) async fn died(&self) {
        loop {
            let died = self.died.notified();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        self.world.note(format_args!("[{}] {line}", self.instance));
    }

    /// Says what the process is about to do, and lets the fuse burn: together with [`Gate::passes`] one step into the world
    /// or back. Use [`step!`].
    pub(crate) fn enters(&self, what: fmt::Arguments<'_>) {
        let fuse = self.fuse.load(Ordering::Relaxed);
        if fuse == 0 && !self.world.healed() {
            self.kill();
        }
        self.fuse.store(fuse.saturating_sub(u64::from(fuse != u64::MAX)), Ordering::Relaxed);
        if !self.is_dead() {
            self.note(what);
        }
    }

    /// Takes its time, and never ends for a dead process.
    pub(crate) async fn passes(&self) {
        self.open().await;
        let latency = self.world.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        loop {
            let until = Duration::from_millis(self.stalled_until_ms.load(Ordering::Relaxed));
            let left = until.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
        }
        self.open().await;
    }

    async fn open(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}
