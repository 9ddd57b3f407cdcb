//! The second of the three kinds of code: it writes down for reading what happened.

use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use kernel::{Commit, FactError, Position, StreamName};
use runtime::consume::{self, Begin, HandleError, Handler, Released};
use runtime::lease::Lease;
use runtime::{Log, Parked, Recorded};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::Database;
use crate::machinery::{self, Owner};

/// One commit, ready for projectors.
pub struct CommitFacts<'a> {
    /// Its place in the log.
    pub position: Position,
    /// Whose history it belongs to.
    pub stream: &'a StreamName,
    /// Its events.
    pub commit: Commit<'a>,
}

/// Why commits could not be projected.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// An event could not be read.
    #[error("{0}")]
    Fact(#[from] FactError),
    /// Postgres refused.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
}

impl From<ProjectError> for HandleError {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Fact(error) => Self::Poison(error.to_string()),
            ProjectError::Sql(error) => machinery::handle_error("write rows", error),
        }
    }
}

/// Writes rows from events. Its tables stand in a schema of its own, `<name>_v<version>`, and its SQL names them without
/// the schema: a rebuild runs the same code on a second schema.
#[async_trait]
pub trait Projector: Send + Sync + 'static {
    /// Unique among projections; a valid SQL identifier.
    const NAME: &'static str;
    /// Raised when the tables or their meaning change; a new version fills itself from the beginning of the log.
    const VERSION: u32;
    /// The categories it wants; empty means all.
    const CATEGORIES: &'static [&'static str];
    /// Its tables, for rebuilding and verifying.
    const TABLES: &'static [&'static str];

    /// Writes what the commits say. Set-based: a batch is one or two statements, not one per event. Runs inside the
    /// transaction that moves the checkpoint.
    ///
    /// # Errors
    /// [`ProjectError`]; everything of the batch is rolled back.
    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError>;

    /// Writes the same rows as [`Projector::apply`], faster: for the thousands of commits of a rebuild, on tables that hold
    /// nothing but what this fold has written, each commit once and in order. `COPY` is possible then. Whatever it cannot
    /// take is given to `apply` instead.
    ///
    /// # Errors
    /// [`ProjectError`]; everything of the batch is rolled back.
    async fn load(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        Self::apply(commits, tables).await
    }
}

/// The name of a projector's schema, and of its consumer: `<name>_v<version>`.
#[must_use]
pub fn schema<P: Projector>() -> String {
    format!("{}_v{}", P::NAME, P::VERSION)
}

/// The lease of a projection.
#[must_use]
pub fn lease<P: Projector>() -> String {
    format!("projection/{}", schema::<P>())
}

/// Runs a projection until `stop`, whenever the lease is ours.
pub async fn run<P: Projector>(
    database: Database,
    lease: Lease,
    log: Arc<dyn Log>,
    options: consume::Options,
    stop: CancellationToken,
) {
    consume::run(Projection::<P>::new(database), lease, log, options, stop).await;
}

/// A projector's side of the walk along the log.
pub struct Projection<P> {
    database: Database,
    /// Whose unqualified table names mean the projector's schema; `None` before `begin`.
    connection: Option<PgConnection>,
    owner: Owner,
    projector: PhantomData<fn() -> P>,
}

impl<P: Projector> Projection<P> {
    /// Not yet owner of anything.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, connection: None, owner: Owner::from(0), projector: PhantomData }
    }

    fn connection(&mut self) -> Result<&mut PgConnection, HandleError> {
        self.connection.as_mut().ok_or_else(|| HandleError::Lost("it has no connection".to_owned()))
    }

    /// After a failure nobody knows what state a connection is in.
    fn keep_if_alive<T>(&mut self, result: Result<T, HandleError>) -> Result<T, HandleError> {
        match result {
            Err(HandleError::Transient(reason)) => {
                self.connection = None;
                Err(HandleError::Lost(reason))
            }
            other => other,
        }
    }
}

/// The commits that a projector wants, decoded.
pub(crate) fn wanted<'a, P: Projector>(commits: &[&'a Recorded]) -> Result<Vec<CommitFacts<'a>>, HandleError> {
    let mut facts = Vec::with_capacity(commits.len());
    for recorded in commits {
        let poison = |reason: String| HandleError::Poison(format!("commit {}: {reason}", recorded.position));
        let wanted =
            |stream: &StreamName| P::CATEGORIES.is_empty() || P::CATEGORIES.contains(&stream.category.as_str());
        if recorded.stream.as_ref().is_some_and(|stream| !wanted(stream)) {
            continue;
        }
        let Some((stream, commit)) = recorded.history().map_err(poison)? else { continue };
        facts.push(CommitFacts { position: recorded.position, stream, commit });
    }
    Ok(facts)
}

#[async_trait]
impl<P: Projector> Handler for Projection<P> {
    fn name(&self) -> String {
        schema::<P>()
    }

    async fn begin(&mut self, log: &str, epoch: u64) -> Result<Begin, HandleError> {
        let failed = |error| machinery::our_error("connect", error);
        self.connection = None;
        let mut connection = self.database.dedicated().await.map_err(failed)?;
        set_search_path(&mut connection, &schema::<P>()).await.map_err(failed)?;
        // Rows and checkpoint are lost together when the power fails, and the log brings both back.
        sqlx::query("SET synchronous_commit = off").execute(&mut connection).await.map_err(failed)?;
        // Before the checkpoint is read: moved in between, it is noticed later rather than not at all.
        let moved = machinery::moved(&mut connection, &schema::<P>()).await?;
        let (setting, limit) = crate::database::ABANDONED;
        let abandoned = sqlx::query("SELECT set_config($1, $2, false)").bind(setting).bind(limit);
        abandoned.execute(&mut connection).await.map_err(failed)?;
        let begin = machinery::begin(&mut connection, &schema::<P>(), log, epoch).await?;
        self.connection = Some(connection);
        self.owner = Owner { epoch, moved };
        Ok(begin)
    }

    async fn handle(
        &mut self,
        from: Position,
        to: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError> {
        let facts = wanted::<P>(commits)?;
        let owner = self.owner;
        let connection = self.connection()?;
        let result = async {
            let mut transaction = connection.begin().await.map_err(|error| machinery::our_error("begin", error))?;
            machinery::advance(&mut transaction, &schema::<P>(), owner, from, to).await?;
            if !facts.is_empty() {
                P::apply(&facts, &mut transaction).await?;
            }
            machinery::park(&mut transaction, &schema::<P>(), parked).await?;
            transaction.commit().await.map_err(|error| machinery::our_error("commit", error))
        }
        .await;
        self.keep_if_alive(result)
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        let Owner { epoch, moved: known } = self.owner;
        let connection = self.connection()?;
        let result = async {
            if machinery::moved(connection, &schema::<P>()).await? != known {
                return Err(HandleError::Lost("it was rolled back".to_owned()));
            }
            machinery::released(connection, &schema::<P>(), epoch).await
        }
        .await;
        self.keep_if_alive(result)
    }

    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError> {
        let facts = wanted::<P>(&[commit])?;
        let owner = self.owner;
        let connection = self.connection()?;
        let result = async {
            let mut transaction = connection.begin().await.map_err(|error| machinery::our_error("begin", error))?;
            machinery::hold_as(&mut transaction, &schema::<P>(), owner).await?;
            P::apply(&facts, &mut transaction).await?;
            machinery::unpark(&mut transaction, &schema::<P>(), commit.position).await?;
            transaction.commit().await.map_err(|error| machinery::our_error("commit", error))
        }
        .await;
        self.keep_if_alive(result)
    }

    async fn park_again(&mut self, position: Position, reason: &str) -> Result<(), HandleError> {
        let epoch = self.owner.epoch;
        let result = machinery::park_again(self.connection()?, &schema::<P>(), epoch, position, reason).await;
        self.keep_if_alive(result)
    }
}

/// Unqualified table names mean this schema from now on.
pub(crate) async fn set_search_path(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('search_path', $1, false)").bind(schema).execute(connection).await?;
    Ok(())
}
