//! How somebody came in, kept for answers that go on: a stream lasts no longer than what it was opened with.

use std::sync::Arc;
use std::time::Duration;

use kernel::{PrincipalId, Problem, Timestamp};
use rest::{Access, Signed};
use runtime::clock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How often somebody is asked again of whom nothing is heard: a rotated key's older secret ends sooner than it said, and is
/// told of before it does.
const AGAIN: Duration = Duration::from_secs(15);

/// A token that was let through, and for which scope. The guard puts it into the request.
#[derive(Clone)]
pub(crate) struct Pass {
    access: Arc<dyn Access>,
    token: Arc<str>,
    scope: Arc<str>,
}

impl Pass {
    pub(crate) fn new(access: Arc<dyn Access>, token: &str, scope: String) -> Self {
        Self { access, token: token.into(), scope: scope.into() }
    }

    /// Returns when its holder may not go on: it has expired, or whoever holds it may do less than before and would not be let
    /// in again. When that cannot be told, either: whoever may go on comes back.
    pub(crate) async fn over(self) {
        // Heard from before the first question on, so that nothing falls between the guard's and ours.
        let mut lessened = self.access.lessened();
        let Ok(mut signed) = self.ask().await else { return };
        loop {
            let told = tokio::select! {
                () = until(signed.expires_at) => return,
                concerned = concerned(&mut lessened, &signed.principal) => match concerned {
                    true => true,
                    false => return,
                },
                () = tokio::time::sleep(AGAIN) => false,
            };
            signed = match self.ask().await {
                Ok(signed) => signed,
                // Nobody has said that anything changed.
                Err(problem) if !told && problem.is_transient() => signed,
                Err(_) => return,
            };
        }
    }

    async fn ask(&self) -> Result<Arc<Signed>, Problem> {
        let signed = self.access.bearer(&self.token).await?;
        signed.check(&self.scope)?;
        Ok(signed)
    }
}

/// Returns when this one may do less than before, or may be among those who do. `false`: it will not be told any more.
async fn concerned(lessened: &mut broadcast::Receiver<PrincipalId>, principal: &PrincipalId) -> bool {
    loop {
        match lessened.recv().await {
            Ok(other) if other != *principal => {}
            // Somebody was missed, and nobody knows who.
            Ok(_) | Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

async fn until(end: Option<Timestamp>) {
    match end {
        Some(end) => tokio::time::sleep((end - clock::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use kernel::TenantId;
    use rest::{Holder, Level};

    use super::*;

    /// One key and what it is good for now.
    struct OneKey {
        now: Mutex<Result<Signed, Problem>>,
        lessened: broadcast::Sender<PrincipalId>,
    }

    #[async_trait]
    impl Access for OneKey {
        async fn bearer(&self, _: &str) -> Result<Arc<Signed>, Problem> {
            self.now.lock().expect("a lock").clone().map(Arc::new)
        }

        async fn knows(&self, _: &TenantId) -> Result<bool, Problem> {
            Ok(true)
        }

        fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
            self.lessened.subscribe()
        }
    }

    fn may(level: Level) -> Signed {
        Signed {
            principal: "key_1".parse().expect("a principal"),
            holder: Holder::Program,
            tenant: Some("acme".parse().expect("a tenant")),
            level: Some(level),
            scopes: None,
            operator: false,
            expires_at: None,
        }
    }

    impl OneKey {
        fn new(signed: Signed) -> Arc<Self> {
            Arc::new(Self { now: Mutex::new(Ok(signed)), lessened: broadcast::channel(2).0 })
        }

        fn becomes(&self, now: Result<Signed, Problem>) {
            *self.now.lock().expect("a lock") = now;
        }

        fn tell(&self, whom: &str) {
            self.lessened.send(whom.parse().expect("a principal")).expect("somebody listens");
        }
    }

    async fn opened(key: &Arc<OneKey>) -> tokio::task::JoinHandle<()> {
        let pass = Pass::new(key.clone(), "token", "events:write".to_owned());
        let stream = tokio::spawn(pass.over());
        while key.lessened.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        stream
    }

    async fn settled() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_holder_would_not_be_let_in_again() {
        let refused = || Err(Problem::new(401, "unauthenticated", "It was revoked."));
        for now in [refused(), Ok(may(Level::Read)), Err(Problem::unavailable("The log is away.", 1_000))] {
            let key = OneKey::new(may(Level::Write));
            let stream = opened(&key).await;
            key.tell("key_1");
            settled().await;
            assert!(!stream.is_finished(), "it may still do what it does");
            key.becomes(now);
            key.tell("key_2");
            settled().await;
            assert!(!stream.is_finished(), "that was about somebody else");
            key.tell("key_1");
            stream.await.expect("an end");
        }
        // Told of too many at once: it might have been among them.
        let key = OneKey::new(may(Level::Write));
        let stream = opened(&key).await;
        settled().await;
        key.becomes(refused());
        (0..4).for_each(|n| key.tell(&format!("key_x{n}")));
        stream.await.expect("an end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_also_when_nobody_has_said_a_word_but_not_because_nobody_can_tell() {
        let key = OneKey::new(may(Level::Write));
        let stream = opened(&key).await;
        settled().await;
        key.becomes(Err(Problem::unavailable("The log is away.", 1_000)));
        tokio::time::sleep(3 * AGAIN).await;
        assert!(!stream.is_finished());
        key.becomes(Err(Problem::new(401, "unauthenticated", "It is over.")));
        stream.await.expect("an end");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_token_also_when_that_ends_sooner_than_it_was_said_at_first() {
        let soon =
            |millis| Signed { expires_at: Some(clock::now() + Duration::from_millis(millis)), ..may(Level::Write) };
        opened(&OneKey::new(soon(50))).await.await.expect("an end");
        let key = OneKey::new(soon(3_600_000));
        let stream = opened(&key).await;
        settled().await;
        assert!(!stream.is_finished());
        key.becomes(Ok(soon(50)));
        key.tell("key_1");
        stream.await.expect("an end");
    }
}
