//! The configuration for people: every key, its value, where it came from. Secrets are told as `***`.

use figment::value::Value;
use serde_json::Value as Json;

use super::Loaded;
use super::layers::{defaults, known_keys};
use crate::failure::Outcome;

const SECRETS: [&str; 9] = [
    "nats.password",
    "nats.system_password",
    "nats.tenants_password",
    "nats.callout_password",
    "nats.callout_seed",
    "identity.master_key",
    "oauth.google.client_secret",
    "oauth.github.client_secret",
    "development.token",
];

/// One key.
pub(crate) struct Shown {
    pub(crate) key: String,
    pub(crate) value: Json,
    pub(crate) origin: String,
}

impl Loaded {
    /// Every key, sorted.
    pub(crate) fn shown(&self) -> Outcome<Vec<Shown>> {
        let shown = known_keys(&defaults()?).into_iter().map(|key| {
            let found = self.figment.find_value(&key).ok();
            let value = match found {
                None | Some(Value::Empty(..)) => Json::Null,
                Some(value) => serde_json::to_value(&value).unwrap_or_default(),
            };
            let origin = self.figment.find_metadata(&key).map(|metadata| metadata.name.to_string());
            Shown { value: without_secret(&key, value), origin: origin.unwrap_or_else(|| "default".to_owned()), key }
        });
        Ok(shown.collect())
    }
}

fn without_secret(key: &str, value: Json) -> Json {
    match value {
        Json::String(text) if text.is_empty() => Json::String(text),
        Json::String(_) if SECRETS.contains(&key) => "***".into(),
        Json::String(text) if key.ends_with(".url") => without_password(&text).into(),
        other => other,
    }
}

/// A URL with its passwords and bare tokens replaced by `***`, in the two places where drivers look for them.
pub(crate) fn without_password(url: &str) -> String {
    // NATS takes several, separated by commas.
    url.split(',').map(without_password_one).collect::<Vec<_>>().join(",")
}

fn without_password_one(url: &str) -> String {
    let (before, query) = match url.split_once('?') {
        None => (url, None),
        Some((before, query)) => (before, Some(query)),
    };
    let mut shown = match before.split_once("://") {
        None => before.to_owned(),
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            match authority.rsplit_once('@') {
                None => before.to_owned(),
                Some((login, host)) => match login.split_once(':') {
                    Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
                    // To NATS this is a token, to PostgreSQL a user.
                    None if scheme.starts_with("postgres") => before.to_owned(),
                    None => format!("{scheme}://***@{host}{path}"),
                },
            }
        }
    };
    if let Some(query) = query {
        let parts = query.split('&').map(|part| match part.split_once('=') {
            Some((name, _)) if name.contains("password") => format!("{name}=***"),
            _ => part.to_owned(),
        });
        shown = format!("{shown}?{}", parts.collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://u:p@h:1,nats://secret@g", "nats://u:***@h:1,nats://***@g"),
            ("postgres://u:p@h/db?sslmode=require", "postgres://u:***@h/db?sslmode=require"),
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("postgres:///db?host=/s&user=u&password=p", "postgres:///db?host=/s&user=u&password=***"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let set =
            [("AIRSTREAM__NATS__PASSWORD", "hunter2hunter2"), ("AIRSTREAM__DEVELOPMENT__TOKEN", "0123456789abcdef")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = crate::config::load(None, set, &[]).unwrap();
        let shown = loaded.shown().unwrap();
        let value = |key: &str| shown.iter().find(|shown| shown.key == key).map(|shown| shown.value.clone());
        assert_eq!(value("nats.password"), Some("***".into()));
        assert_eq!(value("development.token"), Some("***".into()));
        assert_eq!(value("nats.system_password"), Some("".into()));
        assert_eq!(value("stack.data_dir"), Some(Json::Null));
        assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    }
}
