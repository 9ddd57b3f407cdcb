//! One process of the platform: an executor, a projection, a reactor and a router, all behind one gate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kernel::{Envelope, FactError, Problem, StreamName, Timestamp};
use runtime::react::{self, Reactor, Report, Verdict};
use runtime::route::Router;
use runtime::{Answer, Commands, EffectRow, Executor, Log, Options, Plan, Registry, Request, consume, lease};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::domain::{ALARM_AFTER_MS, Chime, Counter, Door, Fact, Inbox, Limits, POISON_FOR_BELL, Rule, TENANT};
use crate::faults::{Fault, Mutation};
use crate::gate::{Gate, step};
use crate::log::{SimIndex, SimLog};
use crate::rows::SimRows;
use crate::stores::{SimEffects, SimLeases};
use crate::world::World;

/// The instances that are there, dead or alive: the addresses that clients know.
#[derive(Clone, Default)]
pub(crate) struct Living(Arc<Mutex<Vec<Arc<Instance>>>>);

impl Living {
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, slot: usize, instance: Instance) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = Arc::new(instance);
        match all.get_mut(slot) {
            Some(place) => *place = instance,
            None => all.push(instance),
        }
    }
}

pub(crate) struct Instance {
    pub(crate) gate: Arc<Gate>,
    pub(crate) commands: Arc<Entrance>,
    stop: CancellationToken,
    left: CancellationToken,
}

/// The instance as callers reach it: over the network, so through the gate.
pub(crate) struct Entrance {
    gate: Arc<Gate>,
    executor: Executor,
}

#[async_trait]
impl Commands for Entrance {
    async fn execute(&self, mut request: Request) -> Result<Answer, Problem> {
        let (id, what) =
            (request.id.as_ref().map(ToString::to_string), format!("{} {}", request.command, request.stream));
        let id = id.unwrap_or_default();
        step!(self.gate, "is asked {id} {what}");
        if self.gate.world.mutation == Mutation::ReportsWithoutId && request.internal {
            request.id = None;
        }
        let answer = self.executor.execute(request).await;
        let code = answer.as_ref().map_or_else(|problem| problem.code.as_ref(), |_| "yes");
        step!(self.gate, "answers {id} {what}: {code}");
        answer
    }
}

impl Instance {
    pub(crate) fn start(world: &Arc<World>, number: u64) -> Self {
        let gate = Gate::new(world, number);
        gate.note(format_args!("starts"));
        let log: Arc<dyn Log> = Arc::new(SimLog(Arc::clone(&gate)));
        // Tight, so that every limit is reached.
        let options = Options {
            queue_per_shard: 3,
            streams_per_shard: 1,
            ids_per_stream: 3,
            deadline: Duration::from_secs(3),
            conflict_retries: 3,
            ..Options::default()
        };
        let registry = Registry::new()
            .with_prepared::<Door>(Limits)
            .with::<Rule>()
            .with::<Counter>()
            .with::<Chime>()
            .with::<Inbox>();
        let executor = Executor::start(Arc::clone(&log), Arc::new(SimIndex(Arc::clone(&gate))), registry, options);
        let commands = Arc::new(Entrance { gate: Arc::clone(&gate), executor });
        let stop = CancellationToken::new();

        let rows = format!("projection/{}", crate::rows::NAME);
        let (bell, router) = (react::lease::<Bell>(), react::lease::<Router<Counter>>());
        let wants = vec![rows.clone(), bell.clone(), router.clone()];
        let record = Arc::new(SimLeases { gate: Arc::clone(&gate) });
        // Kept until everything that works under a lease has ended.
        let left = CancellationToken::new();
        let (leases, keeping) = lease::keep(record, gate.name(), wants, lease::Options::default(), left.clone());
        tokio::spawn(keeping);

        let walk = consume::Options {
            batch: 8,
            tries_before_parking: 2,
            heartbeat: Duration::from_secs(2),
            ..consume::Options::default()
        };
        let projection = SimRows { gate: Arc::clone(&gate), epoch: 0 };
        let lease = leases.lease(&rows);
        tokio::spawn(consume::run(projection, lease, Arc::clone(&log), walk.clone(), stop.clone()));
        let options = react::Options { concurrency: 2, longest_retry: Duration::from_secs(2), consume: walk };
        let store = || Arc::new(SimEffects { gate: Arc::clone(&gate) });
        let reports = || Arc::clone(&commands) as Arc<dyn Commands>;
        let (lease, reactor) = (leases.lease(&bell), Bell(Arc::clone(&gate)));
        tokio::spawn(react::run(reactor, lease, Arc::clone(&log), store(), reports(), options.clone(), stop.clone()));
        let (lease, reactor) = (leases.lease(&router), Router::<Counter>::new());
        tokio::spawn(react::run(reactor, lease, log, store(), reports(), options, stop.clone()));
        Self { gate, commands, stop, left }
    }

    /// Stops as a process does that is asked to: consumers first, then the executor answers what it holds.
    pub(crate) async fn stop(&self) {
        self.gate.note(format_args!("stops"));
        self.stop.cancel();
        self.commands.executor.close().await;
        self.left.cancel();
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.gate.kill();
    }
}

/// Rings when a door is opened, and sets an alarm that is cancelled when it is closed.
pub(crate) struct Bell(Arc<Gate>);

#[async_trait]
impl Reactor for Bell {
    const NAME: &'static str = "bell";
    const CATEGORIES: &'static [&'static str] = &["door"];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        let fact: Fact = event.decode()?;
        let (key, serial) = (fact.data["key"].as_u64().unwrap_or_default(), &fact.data["serial"]);
        if key % 8 == POISON_FOR_BELL && !self.0.world.healed() {
            return Err(FactError::UnknownType("on purpose".to_owned()));
        }
        let alarm = format!("alarm/{serial}");
        if fact.kind == "door.closed" {
            return Ok(vec![Plan::Cancel { name: alarm }]);
        }
        let due = |ms: i64| Some(event.time + std::time::Duration::from_millis(ms.unsigned_abs()));
        let request = |report: &str| json!({ "report": report, "serial": serial });
        Ok(vec![
            Plan::Do { name: format!("ring/{serial}"), due: None::<Timestamp>, request: request("rang") },
            Plan::Do { name: alarm, due: due(ALARM_AFTER_MS), request: request("alarmed") },
        ])
    }

    fn is_outward(&self, effect: &EffectRow) -> bool {
        effect.name.starts_with("ring")
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        let world = &self.0.world;
        step!(self.0, "bell: does {} of {}", effect.name, effect.stream);
        world.state().performed.push(checker::Performed {
            consumer: Self::NAME.to_owned(),
            stream: effect.stream.to_string(),
            name: effect.name.clone(),
            key: effect.idempotency_key(),
        });
        if world.strikes(Fault::EffectFails) {
            step!(self.0, "bell: fails");
            return match world.below(4) {
                0 => Verdict::Park { reason: "on purpose".to_owned() },
                1 => Verdict::Retry { reason: "on purpose".to_owned(), after: Some(world.between_ms(1, 2_000)) },
                _ => Verdict::Retry { reason: "on purpose".to_owned(), after: None },
            };
        }
        step!(self.0, "bell: has done it");
        let command = if effect.request["report"] == "rang" { "rang" } else { "alarmed" };
        let to = StreamName::new(TENANT, "chime", effect.stream.id.as_str()).unwrap();
        let report = Report { to, command, body: json!({ "serial": effect.request["serial"] }) };
        Verdict::Done { note: "rang".to_owned(), report: Some(report) }
    }
}
