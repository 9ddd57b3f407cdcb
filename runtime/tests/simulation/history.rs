//! One history: a world, its troubles, its end, and what the laws say.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock;

use crate::chaos::{Chaos, unsettled};
use crate::clients;
use crate::faults::Mutation;
use crate::instance::Living;
use crate::laws;
use crate::world::World;

/// How long the world may take to come to rest after everything works again: longer than every backoff and every patience.
const SETTLE: Duration = Duration::from_secs(600);

/// What came of a history.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    /// Equal for equal histories: every line of the trace and every byte of the log went into it.
    pub(crate) hash: u64,
    /// Commits in the log.
    pub(crate) commits: usize,
    /// Commands that were asked, tries included.
    pub(crate) tries: usize,
    /// The trace, when it was to be kept.
    pub(crate) lines: String,
}

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Machines catch panics of what they carry; here every panic is a violation, so they are noted where they begin.
pub(crate) fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if SIMULATING.get() {
                PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
}

/// Lives through the history of a seed.
pub(crate) fn live(seed: u64, mutation: Mutation, keep_trace: bool) -> Outcome {
    SIMULATING.set(true);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| {
        tokio.block_on(async {
            let _simulation = clock::simulated(seed);
            history(seed, mutation, keep_trace).await
        })
    }));
    let mut outcome = lived.unwrap_or_else(|_| Outcome {
        violations: Vec::new(),
        hash: 0,
        commits: 0,
        tries: 0,
        lines: String::new(),
    });
    drop(tokio);
    SIMULATING.set(false);
    outcome.violations.extend(PANICS.take().into_iter().map(|panic| format!("a panic: {panic}")));
    outcome
}

async fn history(seed: u64, mutation: Mutation, keep_trace: bool) -> Outcome {
    let world = Arc::new(World::new(seed, mutation, keep_trace));
    let living = Living::default();
    world.note(format_args!("{:?}", world.faults));
    tokio::spawn(Chaos::new(&world, &living).run());
    let mut callers = vec![tokio::spawn(clients::queue(Arc::clone(&world), living.clone()))];
    for name in 0..world.faults.clients {
        callers.push(tokio::spawn(clients::client(Arc::clone(&world), living.clone(), name)));
    }
    let end = settled(&world, callers).await;
    let log = laws::log(&world).await;
    let mut violations = laws::violations(&world, &log);
    violations.extend(end.into_iter().map(|open| format!("stuck: {open}")));
    let mut state = world.state();
    for recorded in &log {
        state.trace.bytes(&recorded.payload);
    }
    Outcome {
        violations,
        hash: state.trace.hash(),
        commits: log.len(),
        tries: state.asked.len(),
        lines: state.trace.take_lines(),
    }
}

/// Waits until every caller has its answers and nothing is left to do. Returns what is still open when that does not come.
async fn settled(world: &World, callers: Vec<tokio::task::JoinHandle<()>>) -> Vec<String> {
    let until = tokio::time::Instant::now() + Duration::from_millis(world.faults.trouble_ms) + SETTLE;
    for caller in callers {
        if tokio::time::timeout_at(until, caller).await.is_err() {
            return vec!["a caller gets no answer".to_owned()];
        }
    }
    loop {
        let open = unsettled(world).await;
        if (open.is_empty() && world.healed()) || tokio::time::Instant::now() > until {
            return open;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
