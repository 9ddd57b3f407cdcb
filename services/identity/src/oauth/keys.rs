//! A provider's public keys (RFC 7517), kept by name for as long as it says.

use std::collections::HashMap;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Unvouched;

/// How long keys are kept that come without a word about it.
const USUAL: Duration = Duration::from_secs(3_600);
/// The shortest and the longest that they are kept, whatever is said.
const SHORTEST: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(86_400);
/// Names of keys that do not exist are easily made up: how long between two questions.
const PAUSE: Duration = Duration::from_secs(30);
/// And how long until a provider is asked again that did not answer. Meanwhile nobody waits for it.
const RETRY: Duration = Duration::from_secs(5);
/// Keys of one provider. Google has two.
const MOST_KEYS: usize = 32;

/// A public key and the one algorithm that it is for.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// A document of keys, and how long it may be kept.
pub(super) struct Document {
    pub(super) set: Set,
    pub(super) max_age: Option<Duration>,
}

/// A document of keys. Keys of other kinds stand there, too: they are passed over.
#[derive(Deserialize)]
pub(super) struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Set {
    pub(super) fn usable(self) -> HashMap<String, Key> {
        let jwks = self.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        jwks.filter_map(|jwk| Some((jwk.kid.clone(), jwk.read()?))).take(MOST_KEYS).collect()
    }
}

impl Jwk {
    /// The key, if it signs in a way that we verify. Its kind says which; nobody is asked who holds the token.
    fn read(&self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let (name, algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => {
                let key = DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?).ok()?;
                ("RS256", Algorithm::RS256, key)
            }
            ("EC", Some("P-256")) => {
                let key = DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?).ok()?;
                ("ES256", Algorithm::ES256, key)
            }
            _ => return None,
        };
        self.alg.as_deref().is_none_or(|alg| alg == name).then_some(Key { algorithm, key })
    }
}

/// The keys of one provider.
#[derive(Default)]
pub(super) struct KeyCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    keys: HashMap<String, Key>,
    until: Option<Instant>,
    /// When it may be asked again.
    ask_at: Option<Instant>,
    /// Why the last question has no answer.
    trouble: Option<Unvouched>,
}

impl KeyCache {
    /// The key of that name; `None`: the provider has none, as far as we may ask now.
    ///
    /// # Errors
    /// When it has to be asked and cannot be.
    pub(super) async fn key<F>(&self, kid: &str, ask: impl FnOnce() -> F) -> Result<Option<Key>, Unvouched>
    where
        F: Future<Output = Result<Document, Unvouched>>,
    {
        // Whoever comes second waits for the answer to the first.
        let mut known = self.0.lock().await;
        let now = Instant::now();
        let fresh = known.until.is_some_and(|until| until > now);
        if fresh && let Some(key) = known.keys.get(kid) {
            return Ok(Some(key.clone()));
        }
        if known.ask_at.is_none_or(|at| now >= at) {
            let answer = ask().await;
            let pause = if answer.is_ok() { PAUSE } else { RETRY };
            known.ask_at = Some(Instant::now() + pause);
            known.trouble = match answer {
                Ok(Document { set, max_age }) => {
                    known.keys = set.usable();
                    known.until = Some(Instant::now() + max_age.unwrap_or(USUAL).clamp(SHORTEST, LONGEST));
                    None
                }
                Err(unvouched) => Some(unvouched),
            };
        }
        // A provider that is away for a while has not changed its keys.
        let believed = known.until.is_some_and(|until| until + LONGEST > now);
        match (known.keys.get(kid).filter(|_| believed), &known.trouble) {
            (Some(key), _) => Ok(Some(key.clone())),
            (None, Some(unvouched)) => Err(unvouched.clone()),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    /// A provider with one key of this name, and how often it was asked.
    struct Endpoint {
        name: std::sync::Mutex<Option<&'static str>>,
        asked: AtomicUsize,
    }

    impl Endpoint {
        fn with(name: &'static str) -> Self {
            Self { name: std::sync::Mutex::new(Some(name)), asked: AtomicUsize::new(0) }
        }

        fn becomes(&self, name: Option<&'static str>) {
            *self.name.lock().expect("no panic") = name;
        }

        async fn answer(&self) -> Result<Document, Unvouched> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let name = *self.name.lock().expect("no panic");
            let name = name.ok_or_else(|| Unvouched::Away("away".into()))?;
            let keys = vec![json!({ "kty": "RSA", "kid": name, "n": "AQAB", "e": "AQAB" })];
            Ok(Document { set: Set { keys }, max_age: Some(Duration::from_secs(600)) })
        }

        fn times(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_asked_for_once_and_made_up_names_do_not_change_that() {
        let (cache, endpoint) = (KeyCache::default(), Endpoint::with("a"));
        let key = async |name: &str| cache.key(name, || endpoint.answer()).await.map(|key| key.is_some());
        let many = futures::future::join_all((0..16).map(|_| cache.key("a", || endpoint.answer()))).await;
        assert!(many.iter().all(|key| matches!(key, Ok(Some(_)))));
        assert_eq!(endpoint.times(), 1);
        for n in 0..100 {
            assert_eq!(key(&format!("made-up-{n}")).await, Ok(false));
        }
        assert_eq!(endpoint.times(), 1, "less than half a minute has passed");
        // The provider has a new key, and its first token comes.
        endpoint.becomes(Some("b"));
        tokio::time::advance(PAUSE).await;
        assert_eq!(key("b").await, Ok(true));
        assert_eq!((key("a").await, endpoint.times()), (Ok(false), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_away_is_believed_for_a_day() {
        let (cache, endpoint) = (KeyCache::default(), Endpoint::with("a"));
        let key = async |name: &str| cache.key(name, || endpoint.answer()).await.map(|key| key.is_some());
        endpoint.becomes(None);
        assert!(key("a").await.is_err());
        endpoint.becomes(Some("a"));
        assert!(key("a").await.is_err(), "it was asked a moment ago");
        assert_eq!(endpoint.times(), 1);
        tokio::time::advance(RETRY).await;
        assert_eq!(key("a").await, Ok(true));
        endpoint.becomes(None);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(key("a").await, Ok(true));
        tokio::time::advance(LONGEST).await;
        assert!(key("a").await.is_err());
    }

    #[test]
    fn only_keys_that_sign_in_a_known_way_count() {
        let usable = |jwk: serde_json::Value| {
            Set { keys: vec![jwk, json!("nonsense")] }.usable().into_values().map(|key| key.algorithm).next()
        };
        let rsa = json!({ "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB", "use": "sig", "alg": "RS256" });
        let with = |key: &str, value: &str| {
            let mut jwk = rsa.clone();
            jwk[key] = value.into();
            jwk
        };
        assert_eq!(usable(rsa.clone()), Some(Algorithm::RS256));
        for (key, value) in [("use", "enc"), ("alg", "RS512"), ("alg", "HS256"), ("kty", "oct"), ("n", "not base64!")] {
            assert_eq!(usable(with(key, value)), None, "{key}: {value}");
        }
        let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "a", "x": "AQAB", "y": "AQAB" });
        assert_eq!(usable(ec), Some(Algorithm::ES256));
        assert_eq!(usable(json!({ "kty": "EC", "crv": "P-521", "kid": "a", "x": "AQAB", "y": "AQAB" })), None);
        assert_eq!(usable(json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" })), None);
        assert_eq!(usable(json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" })), None, "it has no name");
    }
}
