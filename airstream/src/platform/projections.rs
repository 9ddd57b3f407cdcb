//! Projections, one line each.

use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use gateway::{Known, Operations};
use kernel::Position;
use projections::audit::Audit;
use projections::backup::refill;
use projections::commits::Commits;
use projections::inbox::Inbox;
use projections::runs::Runs;
use projections::tenants::Tenants;
use projections::workflows::Workflows;
use projections::{Database, Fold, Progress, Projector, RolledBack, lease, rebuild, roll_back, run, schema, verify};
use runtime::Log;
use runtime::consume::{self, HandleError};
use runtime::lease::Leases;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Calls a macro-free generic function once per projection: the list exists once.
trait EachProjector {
    fn visit<P: Projector>(&mut self);
}

fn each(visitor: &mut impl EachProjector) {
    visitor.visit::<Commits>();
    visitor.visit::<Workflows>();
    visitor.visit::<Runs>();
    visitor.visit::<Inbox>();
    visitor.visit::<Tenants>();
    visitor.visit::<Audit>();
}

struct Start<'a> {
    database: &'a Database,
    leases: &'a Leases,
    log: &'a Arc<dyn Log>,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl EachProjector for Start<'_> {
    fn visit<P: Projector>(&mut self) {
        let (database, log, stop) = (self.database.clone(), Arc::clone(self.log), self.stop.clone());
        let lease = self.leases.lease(&lease::<P>());
        self.tasks.spawn(run::<P>(database, lease, log, consume::Options::default(), stop));
    }
}

/// Starts every projection.
pub(super) fn start(
    database: &Database,
    leases: &Leases,
    log: &Arc<dyn Log>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    each(&mut Start { database, leases, log, tasks, stop });
}

struct Wants(Vec<String>);

impl EachProjector for Wants {
    fn visit<P: Projector>(&mut self) {
        self.0.push(lease::<P>());
    }
}

/// The leases of all projections.
pub(super) fn leases() -> Vec<String> {
    let mut wants = Wants(Vec::new());
    each(&mut wants);
    wants.0
}

/// A projection's name and the work of filling it.
type Refill = (&'static str, BoxFuture<'static, Result<Position, HandleError>>);

/// Hears how many messages are folded, of how many.
type Heard = Arc<dyn Fn(u64, u64) + Send + Sync>;

struct Refills<'a> {
    database: &'a Database,
    log: &'a Arc<dyn Log>,
    of_log: &'a str,
    heard: Heard,
    all: Vec<Refill>,
}

impl EachProjector for Refills<'_> {
    fn visit<P: Projector>(&mut self) {
        let (database, log, heard) = (self.database.clone(), Arc::clone(self.log), Arc::clone(&self.heard));
        let of_log = self.of_log.to_owned();
        let work = async move { refill::<P>(&database, &log, &of_log, |done, total| heard(done, total)).await };
        self.all.push((P::NAME, Box::pin(work)));
    }
}

/// The work of filling every projection from a restored log, up to the checkpoints that it has for the log of that name.
pub(crate) fn refills(database: &Database, log: &Arc<dyn Log>, of_log: &str, heard: Heard) -> Vec<Refill> {
    let mut refills = Refills { database, log, of_log, heard, all: Vec::new() };
    each(&mut refills);
    refills.all
}

/// What operators can have done to projections.
pub(super) struct Operators {
    database: Database,
    log: Arc<dyn Log>,
}

impl Operators {
    pub(super) fn new(database: Database, log: Arc<dyn Log>) -> Self {
        Self { database, log }
    }
}

/// A projection whose type is not known any more.
#[async_trait]
trait AnyProjection: Send + Sync {
    async fn fold(&self, on: &Operators, switch: bool, progress: mpsc::Sender<Progress>) -> Result<Fold, HandleError>;
    async fn roll_back(&self, on: &Operators) -> Result<RolledBack, HandleError>;
}

struct Of<P>(PhantomData<fn() -> P>);

#[async_trait]
impl<P: Projector> AnyProjection for Of<P> {
    async fn fold(&self, on: &Operators, switch: bool, progress: mpsc::Sender<Progress>) -> Result<Fold, HandleError> {
        // Progress is for people: when they do not keep up, they miss some of it.
        let tell = move |news| {
            let _ = progress.try_send(news);
        };
        match switch {
            true => rebuild::<P>(&on.database, &on.log, tell).await,
            false => verify::<P>(&on.database, &on.log, tell).await,
        }
    }

    async fn roll_back(&self, on: &Operators) -> Result<RolledBack, HandleError> {
        roll_back::<P>(&on.database).await
    }
}

struct All(Vec<(Known, Box<dyn AnyProjection>)>);

impl EachProjector for All {
    fn visit<P: Projector>(&mut self) {
        let known = Known { name: P::NAME, version: P::VERSION, consumer: schema::<P>() };
        self.0.push((known, Box::new(Of::<P>(PhantomData))));
    }
}

fn all() -> Vec<(Known, Box<dyn AnyProjection>)> {
    let mut all = All(Vec::new());
    each(&mut all);
    all.0
}

fn find(wanted: &Known) -> Result<Box<dyn AnyProjection>, HandleError> {
    let found = all().into_iter().find(|(known, _)| known == wanted).map(|(_, projection)| projection);
    found.ok_or_else(|| HandleError::Lost(format!("there is no projection `{}`", wanted.consumer)))
}

#[async_trait]
impl Operations for Operators {
    fn projections(&self) -> Vec<Known> {
        all().into_iter().map(|(known, _)| known).collect()
    }

    async fn fold(
        &self,
        projection: &Known,
        switch: bool,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Fold, HandleError> {
        find(projection)?.fold(self, switch, progress).await
    }

    async fn roll_back(&self, projection: &Known) -> Result<RolledBack, HandleError> {
        find(projection)?.roll_back(self).await
    }
}
