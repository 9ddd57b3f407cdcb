//! Projections, one line each.

use std::sync::Arc;

use async_trait::async_trait;
use gateway::Operations;
use projections::commits::Commits;
use projections::inbox::Inbox;
use projections::runs::Runs;
use projections::workflows::Workflows;
use projections::{Database, Fold, Progress, Projector, lease, rebuild, run, verify};
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

struct Names(Vec<&'static str>);

impl EachProjector for Names {
    fn visit<P: Projector>(&mut self) {
        self.0.push(P::NAME);
    }
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

    async fn fold_one<P: Projector>(
        &self,
        switch: bool,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Fold, HandleError> {
        // Progress is for people: when they do not keep up, they miss some of it.
        let tell = move |news| {
            let _ = progress.try_send(news);
        };
        match switch {
            true => rebuild::<P>(&self.database, &self.log, tell).await,
            false => verify::<P>(&self.database, &self.log, tell).await,
        }
    }
}

#[async_trait]
impl Operations for Operators {
    fn projections(&self) -> Vec<&'static str> {
        let mut names = Names(Vec::new());
        each(&mut names);
        names.0
    }

    async fn fold(
        &self,
        name: &'static str,
        switch: bool,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Fold, HandleError> {
        match name {
            Commits::NAME => self.fold_one::<Commits>(switch, progress).await,
            Workflows::NAME => self.fold_one::<Workflows>(switch, progress).await,
            Runs::NAME => self.fold_one::<Runs>(switch, progress).await,
            Inbox::NAME => self.fold_one::<Inbox>(switch, progress).await,
            other => Err(HandleError::Lost(format!("there is no projection `{other}`"))),
        }
    }
}
