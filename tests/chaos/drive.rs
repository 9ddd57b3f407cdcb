//! Callers, workers and faults, all at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Turn, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caller::Callers;
use crate::hook::Hook;
use crate::mix::{self, Act, Door, LANES};
use crate::plan;
use crate::profile::Profile;
use crate::workers;
use crate::world::World;

/// What was done to whom, for people: when, after how many commands, what.
pub(crate) type Strikes = Arc<Mutex<Vec<String>>>;

/// What a drive leaves.
pub(crate) struct Driven {
    pub(crate) callers: Arc<Callers>,
    pub(crate) hook: Hook,
    workers: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

impl Driven {
    /// Tells the workers to go home and waits until they have.
    pub(crate) async fn workers_end(&self) {
        self.stop.cancel();
        let mut workers = std::mem::take(&mut *self.workers.lock().unwrap());
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
    }
}

/// Where the callers are.
struct Progress {
    next: AtomicU64,
    answered: watch::Sender<u64>,
    /// Callers do not run away from the faults: numbers from here on wait for the next one.
    until: watch::Sender<u64>,
    /// Queued commands of one lane are published one after the other.
    lanes: Vec<Turn<()>>,
}

/// Asks everything that is planned while everything that is planned is broken.
pub(crate) async fn drive(profile: &Profile, world: &Arc<World>, strikes: Strikes) -> Driven {
    let callers = Arc::new(Callers::connect(world).await);
    let (hook, stop) = (Hook::default(), CancellationToken::new());
    for definition in mix::definitions(&hook.listen().await) {
        callers.ask(0, &definition).await;
    }
    let workers = Mutex::new(workers::start(profile, &callers, &stop));
    let faults = plan::faults(profile);
    let first = faults.first().map_or(profile.commands, |planned| planned.after);
    let progress = Arc::new(Progress {
        next: AtomicU64::new(0),
        answered: watch::Sender::new(0),
        until: watch::Sender::new(first + profile.clients),
        lanes: (0..LANES).map(|_| Turn::new(())).collect(),
    });
    let mut clients = JoinSet::new();
    for who in 0..profile.clients {
        clients.spawn(client(profile.clone(), who, Arc::clone(&callers), Arc::clone(&progress)));
    }
    let began = Instant::now();
    let telling = tokio::spawn(tell(profile.commands, Arc::clone(&progress), Arc::clone(&strikes), began));
    let mut answered = progress.answered.subscribe();
    for (number, planned) in faults.iter().enumerate() {
        answered.wait_for(|answered| *answered >= planned.after).await.unwrap();
        world.strike(&planned.fault).await;
        let at = began.elapsed();
        let clock = runtime::clock::now().format("%H:%M:%S%.3f");
        strikes.lock().unwrap().push(format!(
            "{clock} ({:.1} s, after {} commands): {}",
            at.as_secs_f64(),
            planned.after,
            planned.fault
        ));
        let next = faults.get(number + 1).map_or(profile.commands, |next| next.after);
        progress.until.send_replace(next + profile.clients);
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    telling.abort();
    eprintln!("{} commands answered in {:.0} s", profile.commands, began.elapsed().as_secs_f64());
    Driven { callers, hook, workers, stop }
}

async fn client(profile: Profile, who: u64, callers: Arc<Callers>, progress: Arc<Progress>) {
    let mut until = progress.until.subscribe();
    loop {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= profile.commands {
            return;
        }
        until.wait_for(|until| number < *until).await.unwrap();
        perform(profile.seed, who, number, &callers, &progress).await;
        progress.answered.send_modify(|answered| *answered += 1);
    }
}

async fn perform(seed: u64, who: u64, number: u64, callers: &Callers, progress: &Progress) {
    let command = match mix::act(seed, number) {
        Act::Ask(command) => command,
        Act::Repeat(earlier) | Act::Misuse(earlier) if !callers.ledger.was_accepted(&mix::command(seed, earlier)) => {
            mix::command(seed, number)
        }
        Act::Misuse(earlier) => return callers.misuse(who, &mix::misused(&mix::command(seed, earlier))).await,
        Act::Repeat(earlier) => mix::command(seed, earlier),
    };
    if command.door == Door::Queue {
        let lane = command.stream.strip_prefix("lane-").and_then(|lane| lane.parse::<usize>().ok());
        let _turn = match lane {
            Some(lane) => Some(progress.lanes[lane].lock().await),
            None => None,
        };
        callers.publish(who, &command).await;
    } else {
        callers.ask(who, &command).await;
    }
}

/// Says how far it is, at most every other second, when there is news.
async fn tell(commands: u64, progress: Arc<Progress>, strikes: Strikes, began: Instant) {
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    let mut told = None;
    loop {
        ticks.tick().await;
        let strikes = strikes.lock().unwrap();
        let news = (*progress.answered.borrow(), strikes.len());
        if told.replace(news) != Some(news) {
            let last = strikes.last().map(String::as_str).unwrap_or_default();
            let seconds = began.elapsed().as_secs();
            eprintln!("{seconds:>4} s  {} of {commands} commands, {} faults; {last}", news.0, news.1);
        }
    }
}
