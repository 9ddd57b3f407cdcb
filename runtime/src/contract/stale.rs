//! Of the contract of command execution: what was accepted by one writer is not refused by another that does not know it yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use kernel::{Problem, Stamp};

use super::executing::{ask, executor, refused};
use super::{Till, TillCommand, fresh_stream};
use crate::{Answer, Commands, CommitIndex, Executor, Log, Options, Prepare, Registry, Request};

pub(super) async fn a_stale_memory_does_not_refuse_what_was_accepted(log: &Arc<dyn Log>, index: &Arc<dyn CommitIndex>) {
    let stream = fresh_stream("till");
    let [one, other] = [executor(log, index), executor(log, index)];
    // The other one remembers a stream that nobody has written to.
    refused(&other, ask(&stream, "give", 1, None)).await;
    one.execute(ask(&stream, "take", 5, Some("t"))).await.unwrap();
    let garbled = Request { body: "{".into(), ..ask(&stream, "take", 5, Some("t")) };
    assert_eq!(refused(&other, garbled).await.code, "command_id_reused", "its memory was believed");

    // What a command depends on may be gone when it is asked again; it was accepted all the same.
    let (stream, open) = (fresh_stream("till"), Arc::new(AtomicBool::new(true)));
    let depending = || {
        let registry = Registry::new().with_prepared::<Till>(Open(Arc::clone(&open)));
        Executor::start(Arc::clone(log), Arc::clone(index), registry, Options::default())
    };
    let [one, other] = [depending(), depending()];
    refused(&other, ask(&stream, "give", 1, None)).await;
    let first = one.execute(ask(&stream, "take", 5, Some("t"))).await.unwrap();
    open.store(false, Ordering::Relaxed);
    let again = other.execute(ask(&stream, "take", 5, Some("t"))).await.unwrap();
    assert_eq!(Answer { repeated: false, ..again }, first, "an accepted command was refused when it was repeated");
    assert_eq!(refused(&other, ask(&stream, "take", 1, Some("u"))).await.code, "closed");
}

/// Lets commands through only while something elsewhere is open.
struct Open(Arc<AtomicBool>);

#[async_trait]
impl Prepare<TillCommand> for Open {
    async fn prepare(&self, command: TillCommand, _: &Stamp, _: &Executor) -> Result<TillCommand, Problem> {
        if self.0.load(Ordering::Relaxed) { Ok(command) } else { Err(Problem::new(409, "closed", "It is closed.")) }
    }
}
