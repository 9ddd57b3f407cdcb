//! Sealing, opening, forgetting.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::Sealed;
use lru::LruCache;
use tokio::time::Instant;

use crate::cipher::{KEY_BYTES, Key, random};
use crate::{Keyring, KeyringError, MasterKey};

/// The form that [`Sealed`] has now.
const VERSION: u8 = 1;
/// Unwrapped keys held at once.
const CACHED_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// How long an unwrapped key may be held: so long can another instance still read somebody who was erased elsewhere, if it
/// did not hear of it.
const CACHED_FOR: Duration = Duration::from_secs(300);

/// Seals and opens texts. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    master: MasterKey,
    keyring: Arc<dyn Keyring>,
    cache: Mutex<Cache>,
}

struct Cache {
    keys: LruCache<String, (Key, Instant)>,
    /// Counts what was forgotten: what was read from the keyring before that is not kept after it.
    forgotten: u64,
}

/// What a sealed text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// This.
    Text(String),
    /// Nobody knows any more: its subject was erased.
    Erased,
}

impl Opened {
    /// The text, if there is one.
    #[must_use]
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Erased => None,
        }
    }
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store of keys cannot be asked now.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Nothing can be sealed for somebody who was erased.
    #[error("`{subject}` was erased: nothing can be kept about them any more")]
    Erased {
        /// Who.
        subject: String,
    },
    /// It was sealed with another master key, for another field or subject, or changed since.
    #[error(
        "what is sealed as `{field}` of `{subject}` cannot be opened: another master key, another field, or damage"
    )]
    Unreadable {
        /// About whom.
        subject: String,
        /// What.
        field: String,
    },
}

impl Vault {
    /// On a store of keys that this master key wraps.
    #[must_use]
    pub fn new(master: MasterKey, keyring: Arc<dyn Keyring>) -> Self {
        Self(Arc::new(Inner {
            master,
            keyring,
            cache: Mutex::new(Cache { keys: LruCache::new(CACHED_KEYS), forgotten: 0 }),
        }))
    }

    /// Seals a text about a subject. `field` says what it is, such as `email`: it can be opened as that only. A subject that
    /// has no key yet gets one.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn seal(&self, subject: &str, field: &str, text: &str) -> Result<Sealed, VaultError> {
        let key = self.key(subject, field).await?;
        let context = context(subject, field);
        let nonce = key.nonce(&context, text.as_bytes());
        let sealed = key.seal(nonce, &context, text.as_bytes());
        Ok(Sealed {
            v: VERSION,
            sub: subject.to_owned(),
            nonce: URL_SAFE_NO_PAD.encode(nonce),
            ct: URL_SAFE_NO_PAD.encode(sealed),
        })
    }

    /// Opens what was sealed as this field.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn open(&self, sealed: &Sealed, field: &str) -> Result<Opened, VaultError> {
        let subject = sealed.sub.as_str();
        let Some(key) = self.known(subject, field).await? else { return Ok(Opened::Erased) };
        let opened = || {
            let nonce = URL_SAFE_NO_PAD.decode(&sealed.nonce).ok()?.try_into().ok()?;
            let bytes = URL_SAFE_NO_PAD.decode(&sealed.ct).ok()?;
            String::from_utf8(key.open(nonce, &context(subject, field), &bytes)?).ok()
        };
        let text = (sealed.v == VERSION).then(opened).flatten();
        text.map(Opened::Text).ok_or_else(|| unreadable(subject, field))
    }

    /// As [`Vault::seal`], for what is no text: nonce and sealed bytes in one.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn seal_bytes(&self, subject: &str, field: &str, bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
        let key = self.key(subject, field).await?;
        let context = context(subject, field);
        let nonce = key.nonce(&context, bytes);
        let mut sealed = nonce.to_vec();
        sealed.extend(key.seal(nonce, &context, bytes));
        Ok(sealed)
    }

    /// Opens what [`Vault::seal_bytes`] has sealed; `None`: its subject was erased.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn open_bytes(&self, subject: &str, field: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(key) = self.known(subject, field).await? else { return Ok(None) };
        let opened = || {
            let (nonce, sealed) = sealed.split_first_chunk()?;
            key.open(*nonce, &context(subject, field), sealed)
        };
        opened().map(Some).ok_or_else(|| unreadable(subject, field))
    }

    /// Destroys a subject's key: from now on nobody can open what is sealed with it.
    ///
    /// # Errors
    /// [`VaultError::Keyring`]; then nothing has been destroyed.
    pub async fn destroy(&self, subject: &str) -> Result<(), VaultError> {
        self.0.keyring.destroy(subject).await?;
        self.forget(subject);
        Ok(())
    }

    /// Forgets what is held of a subject's key in memory: another instance has destroyed it.
    pub fn forget(&self, subject: &str) {
        let mut cache = self.cache();
        cache.forgotten += 1;
        cache.keys.pop(subject);
    }

    /// A subject's key, made if there is none yet.
    async fn key(&self, subject: &str, field: &str) -> Result<Key, VaultError> {
        let before = match self.cached(subject) {
            Ok(key) => return Ok(key),
            Err(before) => before,
        };
        let fresh = self.0.master.wrap(subject, &random::<KEY_BYTES>());
        let kept = self.0.keyring.get_or_keep(subject, fresh).await?;
        let wrapped = kept.ok_or_else(|| VaultError::Erased { subject: subject.to_owned() })?;
        self.unwrap(subject, field, &wrapped, before)
    }

    /// A subject's key, if it has one.
    async fn known(&self, subject: &str, field: &str) -> Result<Option<Key>, VaultError> {
        let before = match self.cached(subject) {
            Ok(key) => return Ok(Some(key)),
            Err(before) => before,
        };
        let wrapped = self.0.keyring.get(subject).await?;
        wrapped.map(|wrapped| self.unwrap(subject, field, &wrapped, before)).transpose()
    }

    /// `before`: what had been forgotten when the keyring was asked. Whoever was forgotten since may have been destroyed since.
    fn unwrap(&self, subject: &str, field: &str, wrapped: &[u8], before: u64) -> Result<Key, VaultError> {
        let key = self.0.master.unwrap(subject, wrapped).ok_or_else(|| unreadable(subject, field))?;
        let mut cache = self.cache();
        if cache.forgotten == before {
            cache.keys.put(subject.to_owned(), (key.clone(), Instant::now() + CACHED_FOR));
        }
        Ok(key)
    }

    /// A key that is held; or what has been forgotten so far.
    fn cached(&self, subject: &str) -> Result<Key, u64> {
        let mut cache = self.cache();
        match cache.keys.get(subject) {
            Some((key, until)) if *until > Instant::now() => return Ok(key.clone()),
            Some(_) => drop(cache.keys.pop(subject)),
            None => {}
        }
        Err(cache.forgotten)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(subject: &str, field: &str) -> VaultError {
    VaultError::Unreadable { subject: subject.to_owned(), field: field.to_owned() }
}

/// What a text is bound to. Subjects and fields are names of ours and contain no zero byte.
fn context(subject: &str, field: &str) -> Vec<u8> {
    [subject.as_bytes(), b"\0", field.as_bytes()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{InvalidMasterKey, MemoryKeyring};

    fn vault() -> (Vault, Arc<MemoryKeyring>, MasterKey) {
        let (master, keyring) = (MasterKey::parse(&MasterKey::generate()).unwrap(), Arc::new(MemoryKeyring::default()));
        (Vault::new(master.clone(), Arc::clone(&keyring) as Arc<dyn Keyring>), keyring, master)
    }

    #[tokio::test]
    async fn the_keyring_in_memory() {
        crate::contract::suite(&MemoryKeyring::default()).await;
    }

    #[tokio::test]
    async fn bytes_are_sealed_like_texts() {
        let (vault, ..) = vault();
        let sealed = vault.seal_bytes("usr_1", "export", b"PK\x03\x04").await.unwrap();
        assert_eq!(vault.open_bytes("usr_1", "export", &sealed).await.unwrap().unwrap(), b"PK\x03\x04");
        let mut damaged = sealed.clone();
        damaged[20] ^= 1;
        for (field, bytes) in [("email", sealed.as_slice()), ("export", &damaged), ("export", &sealed[..5])] {
            let refused = vault.open_bytes("usr_1", field, bytes).await;
            assert!(matches!(refused, Err(VaultError::Unreadable { .. })), "{refused:?}");
        }
        vault.destroy("usr_1").await.unwrap();
        assert_eq!(vault.open_bytes("usr_1", "export", &sealed).await.unwrap(), None);
        assert!(matches!(vault.seal_bytes("usr_1", "export", b"x").await, Err(VaultError::Erased { .. })));
    }

    #[tokio::test]
    async fn what_is_sealed_is_opened_as_what_it_is_and_as_nothing_else() {
        let (vault, ..) = vault();
        let sealed = vault.seal("usr_1", "email", "ann@example.org").await.unwrap();
        assert!(!format!("{sealed:?}").contains("ann"));
        assert_eq!(vault.open(&sealed, "email").await.unwrap(), Opened::Text("ann@example.org".into()));
        // Neither as another field nor as somebody else's.
        assert!(matches!(vault.open(&sealed, "name").await, Err(VaultError::Unreadable { .. })));
        vault.seal("usr_2", "email", "x").await.unwrap();
        let moved = Sealed { sub: "usr_2".into(), ..sealed.clone() };
        assert!(matches!(vault.open(&moved, "email").await, Err(VaultError::Unreadable { .. })));
        let damaged = Sealed { ct: sealed.ct.replace(&sealed.ct[..2], "zz"), ..sealed.clone() };
        assert!(matches!(vault.open(&damaged, "email").await, Err(VaultError::Unreadable { .. })));
        let newer = Sealed { v: 2, ..sealed };
        assert!(matches!(vault.open(&newer, "email").await, Err(VaultError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn the_same_text_in_the_same_place_is_the_same_value_also_after_a_restart() {
        let (vault, keyring, master) = vault();
        let first = vault.seal("usr_1", "email", "a").await.unwrap();
        assert_eq!(vault.seal("usr_1", "email", "a").await.unwrap(), first);
        assert_ne!(vault.seal("usr_1", "email", "b").await.unwrap().nonce, first.nonce);
        assert_ne!(vault.seal("usr_1", "name", "a").await.unwrap().nonce, first.nonce);
        assert_ne!(vault.seal("usr_2", "email", "a").await.unwrap().ct, first.ct);
        let other = Vault::new(master, keyring);
        assert_eq!(other.seal("usr_1", "email", "a").await.unwrap(), first);
    }

    #[tokio::test]
    async fn who_is_destroyed_stays_destroyed() {
        let (vault, keyring, master) = vault();
        let sealed = vault.seal("usr_1", "email", "a").await.unwrap();
        let other = Vault::new(master, Arc::clone(&keyring) as Arc<dyn Keyring>);
        assert_eq!(other.open(&sealed, "email").await.unwrap(), Opened::Text("a".into()));
        vault.destroy("usr_1").await.unwrap();
        assert_eq!(vault.open(&sealed, "email").await.unwrap(), Opened::Erased);
        assert!(matches!(vault.seal("usr_1", "email", "b").await, Err(VaultError::Erased { .. })));
        // The other one has not heard of it yet.
        assert_eq!(other.open(&sealed, "email").await.unwrap(), Opened::Text("a".into()));
        other.forget("usr_1");
        assert_eq!(other.open(&sealed, "email").await.unwrap(), Opened::Erased);
    }

    /// A keyring that is slow to answer: what it says may be over when it is heard.
    struct Slow {
        inner: Arc<MemoryKeyring>,
        asked: tokio::sync::Notify,
        answer: tokio::sync::Notify,
    }

    #[async_trait::async_trait]
    impl Keyring for Slow {
        async fn get(&self, subject: &str) -> Result<Option<Vec<u8>>, KeyringError> {
            let found = self.inner.get(subject).await;
            self.asked.notify_one();
            self.answer.notified().await;
            found
        }

        async fn get_or_keep(&self, subject: &str, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, KeyringError> {
            let kept = self.inner.get_or_keep(subject, wrapped).await;
            self.asked.notify_one();
            self.answer.notified().await;
            kept
        }

        async fn destroy(&self, subject: &str) -> Result<(), KeyringError> {
            self.inner.destroy(subject).await
        }
    }

    #[tokio::test]
    async fn a_key_that_was_read_before_it_was_destroyed_is_not_held_after() {
        let (vault, keyring, master) = vault();
        let sealed = vault.seal("usr_1", "email", "a").await.unwrap();
        for how in ["open", "seal"] {
            let subject = format!("usr_{how}");
            let sealed = vault.seal(&subject, "email", "a").await.unwrap();
            let slow =
                Arc::new(Slow { inner: Arc::clone(&keyring), asked: Default::default(), answer: Default::default() });
            let other = Vault::new(master.clone(), Arc::clone(&slow) as Arc<dyn Keyring>);
            let destroyed = async {
                slow.asked.notified().await;
                other.destroy(&subject).await.unwrap();
                slow.answer.notify_one();
            };
            let using = async {
                match how {
                    "open" => drop(other.open(&sealed, "email").await.unwrap()),
                    _ => drop(other.seal(&subject, "email", "b").await.unwrap()),
                }
            };
            tokio::join!(using, destroyed);
            slow.answer.notify_one();
            assert_eq!(other.open(&sealed, "email").await.unwrap(), Opened::Erased, "{how}");
        }
        assert_eq!(vault.open(&sealed, "email").await.unwrap(), Opened::Text("a".into()), "somebody else");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_a_key_for_long() {
        let (vault, keyring, _) = vault();
        let sealed = vault.seal("usr_1", "email", "a").await.unwrap();
        keyring.destroy("usr_1").await.unwrap();
        assert_eq!(vault.open(&sealed, "email").await.unwrap(), Opened::Text("a".into()));
        tokio::time::advance(CACHED_FOR).await;
        assert_eq!(vault.open(&sealed, "email").await.unwrap(), Opened::Erased);
    }

    #[tokio::test]
    async fn another_master_key_opens_nothing_and_says_so() {
        let (vault, keyring, _) = vault();
        let sealed = vault.seal("usr_1", "email", "a").await.unwrap();
        let other = Vault::new(MasterKey::parse(&MasterKey::generate()).unwrap(), keyring);
        let said = other.open(&sealed, "email").await.unwrap_err().to_string();
        assert!(said.contains("another master key"), "{said}");
    }

    #[tokio::test]
    async fn a_subject_has_one_key_whoever_comes_first() {
        let (vault, keyring, master) = vault();
        let vaults: Vec<Vault> =
            (0..8).map(|_| Vault::new(master.clone(), Arc::clone(&keyring) as Arc<dyn Keyring>)).collect();
        let mut sealed = Vec::new();
        for other in &vaults {
            sealed.push(other.seal("usr_1", "email", "a").await.unwrap());
        }
        assert!(sealed.iter().all(|one| *one == sealed[0]));
        assert_eq!(vault.open(&sealed[7], "email").await.unwrap(), Opened::Text("a".into()));
    }

    #[test]
    fn a_master_key_is_32_bytes_and_is_never_printed() {
        let text = MasterKey::generate();
        let key = MasterKey::parse(&format!(" {text}\n")).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(***)");
        for bad in ["", "secret", "c2hvcnQ=", &format!("{text}AAAA")] {
            assert_eq!(MasterKey::parse(bad).unwrap_err(), InvalidMasterKey, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>(), field in "[a-z_]{1,12}") {
            let (vault, ..) = vault();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let opened = runtime.block_on(async {
                let sealed = vault.seal("usr_1", &field, &text).await.unwrap();
                vault.open(&sealed, &field).await.unwrap()
            });
            prop_assert_eq!(opened, Opened::Text(text));
        }
    }
}
