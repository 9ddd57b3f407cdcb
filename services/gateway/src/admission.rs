//! Who may come in on the bus, and what for: from a credential to a list of subjects.
//!
//! **Invariant**: every subject on the list names the caller's own tenant. Where callers ask, it names the caller as well, so
//! that the subject of a request tells who asks, and no door has to look further.

use std::sync::Arc;
use std::time::Duration;

use kernel::{PrincipalId, Timestamp};
use metrics::counter;
use nats::{Admit, Admitted, subjects};
use rest::{Access, Signed};
use runtime::{clock, telemetry};

/// The platform's own tenant: nobody comes in as a part of it.
pub(crate) const PLATFORM: &str = "airstream";

/// Decides by what `access` says of a token. A connection lasts as long as its credential, and at most `longest`: what may be
/// done is then decided anew.
#[must_use]
pub fn admit(access: Arc<dyn Access>, longest: Duration) -> Admit {
    for outcome in ["admitted", "refused"] {
        counter!(telemetry::BUS_KNOCKS_TOTAL, "outcome" => outcome).increment(0);
    }
    Arc::new(move |knock| {
        let access = Arc::clone(&access);
        Box::pin(async move {
            let decided = match access.bearer(&knock.secret).await {
                Ok(signed) => admitted(&signed, clock::now() + longest),
                Err(problem) => Err(problem.code.to_string()),
            };
            let outcome = if decided.is_ok() { "admitted" } else { "refused" };
            counter!(telemetry::BUS_KNOCKS_TOTAL, "outcome" => outcome).increment(1);
            match &decided {
                Ok(admitted) => tracing::debug!(principal = admitted.name, host = knock.host, "comes in on the bus"),
                Err(reason) => tracing::info!(reason, host = knock.host, "is not let in on the bus"),
            }
            decided
        })
    })
}

fn admitted(signed: &Signed, latest: Timestamp) -> Result<Admitted, String> {
    let Some(tenant) = &signed.tenant else { return Err("no_tenant".to_owned()) };
    if tenant.as_str() == PLATFORM || signed.principal == PrincipalId::system() {
        return Err("reserved_principal".to_owned());
    }
    let who = format!("{tenant}.{}", signed.principal);
    let mut publish = Vec::new();
    let doors = [("cmd", "commands:write"), ("queue", "commands:write"), ("work", "work:write")];
    for (door, _) in doors.into_iter().filter(|(_, scope)| signed.check(scope).is_ok()) {
        publish.push(format!("{door}.{who}.>"));
        // Where a cluster's servers map it to: the server asks for permission after the mapping.
        publish.push(format!("door.*.{door}.{who}.>"));
    }
    let reads = signed.check("events:read").is_ok();
    if publish.is_empty() && !reads {
        return Err("insufficient_scope".to_owned());
    }
    let mut subscribe = vec![format!("{}.>", subjects::inbox(tenant, &signed.principal))];
    if reads {
        subscribe.push(format!("feed.{tenant}.>"));
    }
    let expires_at = Some(signed.expires_at.map_or(latest, |end| end.min(latest)));
    Ok(Admitted { name: signed.principal.to_string(), publish, subscribe, expires_at })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report by panicking")]
mod tests {
    use rest::{Holder, Level};

    use super::*;

    fn key(level: Level, scopes: Option<&[&str]>) -> Signed {
        Signed {
            principal: "key_1".parse().unwrap(),
            holder: Holder::Program,
            tenant: Some("acme".parse().unwrap()),
            level: Some(level),
            scopes: scopes.map(|scopes| scopes.iter().map(|scope| (*scope).to_owned()).collect()),
            operator: true,
            expires_at: None,
        }
    }

    fn latest() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn scopes_become_doors() {
        let of = |level, scopes: Option<&[&str]>| {
            let admitted = admitted(&key(level, scopes), latest()).unwrap();
            let doors = admitted.publish.into_iter().filter(|subject| !subject.starts_with("door."));
            (doors.collect::<Vec<_>>(), admitted.subscribe)
        };
        let (inbox, feed) = ("_INBOX.acme.key_1.>".to_owned(), "feed.acme.>".to_owned());
        let all = ["cmd", "queue", "work"].map(|door| format!("{door}.acme.key_1.>")).to_vec();
        assert_eq!(of(Level::Write, None), (all, vec![inbox.clone(), feed.clone()]));
        assert_eq!(of(Level::Read, None), (vec![], vec![inbox.clone(), feed]));
        let work = vec!["work.acme.key_1.>".to_owned()];
        assert_eq!(of(Level::Own, Some(&["work:write"])), (work, vec![inbox]));
    }

    #[test]
    fn who_may_do_nothing_here_stays_outside() {
        let refused = |signed: &Signed| admitted(signed, latest()).unwrap_err();
        let key = |scopes| key(Level::Own, Some(scopes));
        assert_eq!(refused(&key(&["keys:admin"])), "insufficient_scope");
        assert_eq!(refused(&Signed { tenant: None, ..key(&["*:own"]) }), "no_tenant");
        assert_eq!(
            refused(&Signed { tenant: Some(PLATFORM.parse().unwrap()), ..key(&["*:own"]) }),
            "reserved_principal"
        );
        assert_eq!(refused(&Signed { principal: PrincipalId::system(), ..key(&["*:own"]) }), "reserved_principal");
    }

    #[test]
    fn a_connection_ends_with_its_credential() {
        let end = |text: &str| Signed { expires_at: Some(text.parse().unwrap()), ..key(Level::Own, None) };
        let ends = |signed: &Signed| admitted(signed, latest()).unwrap().expires_at.unwrap();
        let early = end("2026-11-20T11:00:00Z");
        assert_eq!(ends(&early), early.expires_at.unwrap());
        assert_eq!(ends(&end("2026-11-21T12:00:00Z")), latest());
        assert_eq!(ends(&key(Level::Own, None)), latest());
    }
}
