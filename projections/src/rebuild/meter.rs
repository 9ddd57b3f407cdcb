//! How far a fold has come: told to whoever asked for it, and written down for everybody else.

use std::time::{Duration, Instant};

use kernel::Position;
use runtime::consume::HandleError;
use sqlx::PgPool;

use super::failed;
use crate::machinery;

/// What a fold is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Folding the log beside the live rows.
    Fold,
    /// Making indexes.
    Index,
    /// Comparing with the live rows.
    Compare,
    /// Folding what came meanwhile.
    CatchUp,
    /// Holding the live projection still and taking its place.
    Switch,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fold => "fold",
            Self::Index => "index",
            Self::Compare => "compare",
            Self::CatchUp => "catch_up",
            Self::Switch => "switch",
        }
    }
}

/// How far a fold has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Commits folded.
    pub done: u64,
    /// Commits to fold, as known now: it grows with the log.
    pub total: u64,
    /// Commits folded per second so far.
    pub per_second: f64,
    /// How long the folding will take from now, in seconds, if it goes on like this; the phases after it are not known.
    pub eta_seconds: Option<f64>,
}

pub(crate) const STARTED: &str = "
    INSERT INTO airstream.folds (projection, verb, phase) VALUES ($1, $2, $3)
    ON CONFLICT (projection) DO UPDATE SET verb = EXCLUDED.verb, phase = EXCLUDED.phase, done = 0, total = 0,
        per_second = 0, eta_seconds = NULL, started_at = now(), updated_at = now()";
pub(crate) const TICK: &str = "
    UPDATE airstream.folds SET phase = $2, done = $3, total = $4, per_second = $5, eta_seconds = $6, updated_at = now()
    WHERE projection = $1
    RETURNING (SELECT position FROM airstream.checkpoints WHERE consumer = $1)";
pub(crate) const ENDED: &str = "DELETE FROM airstream.folds WHERE projection = $1";

/// How often the written record follows.
const WRITE_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Meter<'a> {
    pool: PgPool,
    projection: String,
    tell: Box<dyn Fn(Progress) + Send + 'a>,
    phase: Phase,
    done: u64,
    total: u64,
    /// Time spent folding, and since when the present stretch of it lasts.
    folding: Duration,
    since: Instant,
    written: Instant,
}

impl<'a> Meter<'a> {
    pub(super) async fn start(
        pool: &PgPool,
        projection: &str,
        verb: &str,
        tell: Box<dyn Fn(Progress) + Send + 'a>,
    ) -> Result<Self, HandleError> {
        let phase = Phase::Fold;
        sqlx::query(STARTED)
            .bind(projection)
            .bind(verb)
            .bind(phase.as_str())
            .execute(pool)
            .await
            .map_err(failed("write down that a fold begins"))?;
        let (pool, projection, now) = (pool.clone(), projection.to_owned(), Instant::now());
        Ok(Self { pool, projection, tell, phase, done: 0, total: 0, folding: Duration::ZERO, since: now, written: now })
    }

    fn folds(&self) -> bool {
        matches!(self.phase, Phase::Fold | Phase::CatchUp)
    }

    /// Another phase begins.
    pub(super) async fn enter(&mut self, phase: Phase) {
        if self.folds() {
            self.folding += self.since.elapsed();
        }
        self.phase = phase;
        self.since = Instant::now();
        self.write().await;
        (self.tell)(self.progress());
    }

    /// The live projection stands here.
    pub(super) fn heading_for(&mut self, position: Position) {
        self.total = self.total.max(position.sequence());
    }

    /// Folded up to here.
    pub(super) async fn reached(&mut self, position: Position) {
        self.done = position.sequence();
        if self.written.elapsed() >= WRITE_EVERY {
            self.write().await;
        }
        (self.tell)(self.progress());
    }

    fn progress(&self) -> Progress {
        let spent = self.folding + if self.folds() { self.since.elapsed() } else { Duration::ZERO };
        let per_second = self.done as f64 / spent.as_secs_f64().max(1e-3);
        let left = self.total.saturating_sub(self.done) as f64;
        let eta_seconds = (self.folds() && self.done > 0).then(|| left / per_second);
        Progress { phase: self.phase, done: self.done, total: self.total, per_second, eta_seconds }
    }

    /// For a second terminal. What cannot be written is not worth failing for.
    async fn write(&mut self) {
        let progress = self.progress();
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let written: Result<Option<i64>, sqlx::Error> = sqlx::query_scalar(TICK)
            .bind(&self.projection)
            .bind(progress.phase.as_str())
            .bind(number(progress.done))
            .bind(number(progress.total))
            .bind(progress.per_second)
            .bind(progress.eta_seconds)
            .fetch_one(&self.pool)
            .await;
        match written {
            Ok(live) => self.heading_for(machinery::position(live.unwrap_or_default())),
            Err(error) => tracing::warn!(projection = self.projection, %error, "progress could not be written down"),
        }
        self.written = Instant::now();
    }
}
