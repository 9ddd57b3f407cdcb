//! A log that reads streams in small pages: what is done for long streams only can be seen on short ones.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::{Position, StreamName};

use crate::{Append, AppendError, Filter, Freshness, Log, LogError, Page, Reader, Recorded};

pub(super) struct SmallPages(pub(super) Arc<dyn Log>);

#[async_trait]
impl Log for SmallPages {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        self.0.append(commit).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
        const COMMITS: usize = 3;
        let mut page = self.0.read_stream(stream, after, fresh).await?;
        page.more |= page.commits.len() > COMMITS;
        page.commits.truncate(COMMITS);
        Ok(page)
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        self.0.at(position).await
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        self.0.read(after, filter).await
    }

    async fn identity(&self) -> Result<String, LogError> {
        self.0.identity().await
    }

    async fn head(&self) -> Result<Position, LogError> {
        self.0.head().await
    }
}
