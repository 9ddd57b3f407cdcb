//! Where budgets are kept: the port, and its adapters for Postgres and for one process alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use projections::budgets::{Given, Slice};

use super::terms::{Budget, Terms};

/// Why budgets could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Keeps budgets for all instances. [`contract::suite`](super::contract::suite) says what it promises.
#[async_trait]
pub trait Budgets: Send + Sync + 'static {
    /// Takes slices; each budget is named once.
    ///
    /// # Errors
    /// When it cannot be asked. It may have given slices that nobody has then: they are lost.
    async fn take(&self, slices: &[Slice]) -> Result<Vec<Given>, Failed>;

    /// Forgets budgets that are full.
    ///
    /// # Errors
    /// When it cannot be asked.
    async fn sweep(&self) -> Result<(), Failed>;

    /// How many instances share the budgets.
    ///
    /// # Errors
    /// When it cannot be asked.
    async fn sharers(&self) -> Result<u32, Failed>;
}

#[async_trait]
impl Budgets for projections::budgets::Budgets {
    async fn take(&self, slices: &[Slice]) -> Result<Vec<Given>, Failed> {
        self.take(slices).await.map_err(|failure| Failed(format!("{failure}: {}", failure.source)))
    }

    async fn sweep(&self) -> Result<(), Failed> {
        self.sweep().await.map(drop).map_err(|failure| Failed(format!("{failure}: {}", failure.source)))
    }

    async fn sharers(&self) -> Result<u32, Failed> {
        self.sharers().await.map_err(|failure| Failed(format!("{failure}: {}", failure.source)))
    }
}

/// Budgets of this process alone.
pub struct MemoryBudgets {
    began: Instant,
    budgets: Mutex<HashMap<[u8; 16], Budget>>,
}

impl Default for MemoryBudgets {
    fn default() -> Self {
        Self { began: Instant::now(), budgets: Mutex::default() }
    }
}

#[async_trait]
impl Budgets for MemoryBudgets {
    async fn take(&self, slices: &[Slice]) -> Result<Vec<Given>, Failed> {
        let mut budgets = self.budgets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.began.elapsed();
        let given = slices.iter().map(|slice| {
            let most = u32::try_from(slice.room.as_micros() / slice.step.as_micros().max(1)).unwrap_or(u32::MAX);
            let terms = Terms { step: slice.step, most, lasts: Duration::ZERO, least: 1 };
            let budget = budgets.entry(slice.bucket).or_default();
            let (granted, left) = budget.take(&terms, now, slice.wanted);
            Given { bucket: slice.bucket, granted, left, wait: budget.wait(&terms, now) }
        });
        Ok(given.collect())
    }

    async fn sweep(&self) -> Result<(), Failed> {
        Ok(())
    }

    async fn sharers(&self) -> Result<u32, Failed> {
        Ok(1)
    }
}
