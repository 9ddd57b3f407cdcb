//! The port to where wrapped keys are kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

/// Wrapped keys by subject. What is destroyed must not come back: not from a cache, and not under the same subject.
#[async_trait]
pub trait Keyring: Send + Sync + 'static {
    /// A subject's wrapped key; `None` when it has none, or has none any more.
    ///
    /// # Errors
    /// [`KeyringError`] when the store cannot be asked.
    async fn get(&self, subject: &str) -> Result<Option<Vec<u8>>, KeyringError>;

    /// Keeps a wrapped key, unless the subject has one: returns the one that counts. `None` when the subject's key was
    /// destroyed.
    ///
    /// # Errors
    /// [`KeyringError`] when the store cannot be asked.
    async fn get_or_keep(&self, subject: &str, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, KeyringError>;

    /// Destroys a subject's key, for good; also of a subject that never had one.
    ///
    /// # Errors
    /// [`KeyringError`] when the store cannot be asked.
    async fn destroy(&self, subject: &str) -> Result<(), KeyringError>;
}

/// The store of keys cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the store of keys cannot be asked")]
pub struct KeyringError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A keyring in memory: for tests of what uses one.
#[derive(Debug, Default)]
pub struct MemoryKeyring(Mutex<HashMap<String, Option<Vec<u8>>>>);

#[async_trait]
impl Keyring for MemoryKeyring {
    async fn get(&self, subject: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(subject).cloned().flatten())
    }

    async fn get_or_keep(&self, subject: &str, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, KeyringError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.entry(subject.to_owned()).or_insert(Some(wrapped)).clone())
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyringError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.to_owned(), None);
        Ok(())
    }
}
