//! Events as those may read them whom they are about.

use kernel::{Problem, Sealed};
use serde_json::{Map, Value};
use vault::{Opened, VaultError};

use super::Inner;
use crate::accounts::unsealed;

/// In the place of what nobody can read any more.
const ERASED: &str = "erased";

impl Inner {
    /// Opens what is sealed among the fields of an event. What its name does not open stays closed: an archive that misses one
    /// field is better than none.
    pub(super) async fn opened(&self, data: Value) -> Result<Value, Problem> {
        let Value::Object(fields) = data else { return Ok(data) };
        let mut opened = Map::new();
        for (name, value) in fields {
            let value = match serde_json::from_value::<Sealed>(value.clone()) {
                Ok(sealed) => self.field(&name, &sealed).await?,
                Err(_) => value,
            };
            opened.insert(name, value);
        }
        Ok(Value::Object(opened))
    }

    async fn field(&self, name: &str, sealed: &Sealed) -> Result<Value, Problem> {
        match self.accounts.vault.open(sealed, name).await {
            // Where somebody was is an object of its own.
            Ok(Opened::Text(text)) if name == "origin" => {
                Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text)))
            }
            Ok(Opened::Text(text)) => Ok(Value::from(text)),
            Ok(Opened::Erased) => Ok(Value::from(ERASED)),
            Err(error @ VaultError::Unreadable { .. }) => {
                tracing::error!(%error, "personal data cannot be opened");
                Ok(Value::from("unreadable"))
            }
            Err(error) => Err(unsealed(error)),
        }
    }
}
