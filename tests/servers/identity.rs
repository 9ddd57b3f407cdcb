//! Identity's state on a real database: what is decided under locks, by many at once.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use kernel::Sealed;
use projections::Database;
use projections::identity::{
    Approval, Claim, Codes, Credentials, Devices, Handles, Kind, NewCode, NewDevice, NewSession, OLD_AFTER_SECONDS,
    OWN_ROWS, Pace, Polled, Refreshed, Sessions,
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use stories::Servers;

async fn database() -> Database {
    Servers::fresh().await.unwrap().database
}

async fn sql(database: &Database, text: String) {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(database.pool()).await.unwrap();
}

fn sealed() -> Sealed {
    Sealed { v: 1, sub: "usr_1".into(), nonce: "n".into(), ct: "c".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_name_at_once_one_gets_it() {
    let handles = Handles::new(&database().await);
    let people: Vec<String> = (0..64).map(|n| format!("usr_{n}")).collect();
    let claims = join_all(people.iter().map(|person| handles.claim(Kind::Username, b"ann", person))).await;
    let claims: Vec<Claim> = claims.into_iter().map(|claim| claim.unwrap()).collect();
    let winners: Vec<usize> = (0..64).filter(|n| claims[*n] == Claim::Ours).collect();
    let &[winner] = winners.as_slice() else { panic!("{} people have one name", winners.len()) };
    let owner = &people[winner];
    let lost = Claim::Claimed { person: owner.clone(), old: false };
    assert!(claims.iter().enumerate().all(|(n, claim)| n == winner || *claim == lost), "{claims:?}");
    // A claim finds nobody; and whoever has it may ask again.
    assert_eq!(handles.holder(Kind::Username, b"ann").await.unwrap(), None);
    assert_eq!(handles.claim(Kind::Username, b"ann", owner).await.unwrap(), Claim::Ours);
    handles.hold(Kind::Username, b"ann", owner).await.unwrap();
    assert_eq!(handles.holder(Kind::Username, b"ann").await.unwrap().as_ref(), Some(owner));
    let held = Claim::Held { person: owner.clone() };
    assert_eq!(handles.claim(Kind::Username, b"ann", "usr_late").await.unwrap(), held);
    // Another kind is another name. Nobody gives back what is not theirs.
    assert_eq!(handles.claim(Kind::Email, b"ann", "usr_late").await.unwrap(), Claim::Ours);
    handles.release(Kind::Username, b"ann", "usr_late").await.unwrap();
    assert_eq!(handles.claim(Kind::Username, b"ann", "usr_late").await.unwrap(), held);
    // Giving back what one had before leaves what one has, and what is being claimed.
    for name in [b"ann2", b"ann3"] {
        handles.claim(Kind::Username, name, owner).await.unwrap();
    }
    handles.settle(owner).await.unwrap().keep_only(Kind::Username, b"ann2").await.unwrap();
    assert_eq!(handles.holder(Kind::Username, b"ann").await.unwrap(), None);
    assert_eq!(handles.holder(Kind::Username, b"ann2").await.unwrap().as_ref(), Some(owner));
    let claimed = Claim::Claimed { person: owner.clone(), old: false };
    assert_eq!(handles.claim(Kind::Username, b"ann3", "usr_late").await.unwrap(), claimed);
    handles.claim(Kind::Username, b"ann", owner).await.unwrap();
    handles.release_all(owner).await.unwrap();
    assert_eq!(handles.claim(Kind::Username, b"ann", "usr_late").await.unwrap(), Claim::Ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_is_settled_by_one_at_a_time_on_all_instances() {
    let database = database().await;
    let (one, other) = (Handles::new(&database), Handles::new(&database));
    for name in [b"ann1", b"ann2"] {
        one.claim(Kind::Username, name, "usr_1").await.unwrap();
    }
    // One has read that it is the first name. Whoever settles the second one reads later, and has the last word.
    let first = one.settle("usr_1").await.unwrap();
    let second = tokio::spawn({
        let other = other.clone();
        async move { other.settle("usr_1").await.unwrap().keep_only(Kind::Username, b"ann2").await.unwrap() }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    stories::eventually("the second one waits", async || {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(database.pool()).await.unwrap() == 1
    })
    .await;
    first.keep_only(Kind::Username, b"ann1").await.unwrap();
    second.await.unwrap();
    assert_eq!(one.holder(Kind::Username, b"ann2").await.unwrap().as_deref(), Some("usr_1"));
    assert_eq!(one.holder(Kind::Username, b"ann1").await.unwrap(), None);
    // Who was interrupted keeps nobody waiting, and somebody else's names are settled meanwhile.
    let interrupted = one.settle("usr_1").await.unwrap();
    other.settle("usr_2").await.unwrap().keep_only(Kind::Username, b"bob").await.unwrap();
    drop(interrupted);
    other.settle("usr_1").await.unwrap().keep_only(Kind::Username, b"ann2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_claimed_and_left_goes_to_one_other() {
    let database = database().await;
    let handles = Handles::new(&database);
    handles.claim(Kind::Email, b"ann", "usr_gone").await.unwrap();
    assert!(!handles.take_over(Kind::Email, b"ann", "usr_gone", "usr_1").await.unwrap(), "it is not old");
    let age = OLD_AFTER_SECONDS + 1.0;
    sql(&database, format!("UPDATE identity.handles SET claimed_at = now() - make_interval(secs => {age})")).await;
    let old = Claim::Claimed { person: "usr_gone".into(), old: true };
    assert_eq!(handles.claim(Kind::Email, b"ann", "usr_1").await.unwrap(), old);
    let people: Vec<String> = (0..16).map(|n| format!("usr_{n}")).collect();
    let takers = people.iter().map(|person| handles.take_over(Kind::Email, b"ann", "usr_gone", person));
    let taken = join_all(takers).await.into_iter().filter(|taken| *taken.as_ref().unwrap()).count();
    assert_eq!(taken, 1);
}

fn session(id: &str, person: &str) -> NewSession {
    NewSession {
        session: id.into(),
        person: person.into(),
        amr: vec!["pwd".into()],
        origin: sealed(),
        tenant: None,
        lifetime_seconds: 3_600.0,
        auth_time: runtime::clock::now(),
        password_number: None,
    }
}

fn counter(refreshed: &Refreshed) -> Option<i64> {
    match refreshed {
        Refreshed::Current { counter, .. } => Some(*counter),
        Refreshed::Reused { .. } | Refreshed::Over => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_refreshes_at_once_get_one_successor_and_a_stolen_token_ends_the_session() {
    let sessions = Sessions::new(&database().await, 600.0);
    for id in ["a", "b"] {
        sessions.open(&session(id, "usr_1")).await.unwrap();
        sessions.open(&session(id, "usr_eve")).await.unwrap();
    }
    let refreshed = join_all((0..20).map(|_| sessions.refresh("a", 0))).await;
    let given: BTreeSet<Option<i64>> = refreshed.iter().map(|one| counter(one.as_ref().unwrap())).collect();
    assert_eq!(given, BTreeSet::from([Some(1)]), "twenty tabs have different tokens");
    for expected in 2..5 {
        let refreshed = sessions.refresh("a", expected - 1).await.unwrap();
        assert_eq!(counter(&refreshed), Some(expected));
    }
    // Two generations old, in the same second as its successors.
    let reused = sessions.refresh("a", 2).await.unwrap();
    assert_eq!(reused, Refreshed::Reused { person: "usr_1".into() });
    for token in 0..6 {
        assert_eq!(sessions.refresh("a", token).await.unwrap(), Refreshed::Over, "token {token} still works");
    }
    // That family only.
    assert_eq!(counter(&sessions.refresh("b", 0).await.unwrap()), Some(1));
    let left: Vec<String> = sessions.of("usr_1").await.unwrap().into_iter().map(|row| row.session).collect();
    assert_eq!(left, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_before_works_for_a_moment_only() {
    let database = database().await;
    let sessions = Sessions::new(&database, 600.0);
    sessions.open(&session("a", "usr_1")).await.unwrap();
    sessions.refresh("a", 0).await.unwrap();
    assert_eq!(counter(&sessions.refresh("a", 0).await.unwrap()), Some(1), "an answer got lost");
    sql(&database, "UPDATE identity.sessions SET rotated_at = now() - interval '11 s'".into()).await;
    assert_eq!(sessions.refresh("a", 0).await.unwrap(), Refreshed::Reused { person: "usr_1".into() });
    // A token of the future cannot have been given out.
    sessions.open(&session("b", "usr_1")).await.unwrap();
    assert_eq!(sessions.refresh("b", 7).await.unwrap(), Refreshed::Reused { person: "usr_1".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_age_by_idleness_and_by_hand() {
    let database = database().await;
    let sessions = Sessions::new(&database, 600.0);
    for id in ["old", "idle", "mine", "other"] {
        sessions.open(&session(id, "usr_1")).await.unwrap();
    }
    sessions.open(&session("foreign", "usr_2")).await.unwrap();
    sql(&database, "UPDATE identity.sessions SET expires_at = now() WHERE session = 'old'".into()).await;
    sql(&database, "UPDATE identity.sessions SET seen_at = now() - interval '601 s' WHERE session = 'idle'".into())
        .await;
    for id in ["old", "idle", "never"] {
        assert_eq!(sessions.refresh(id, 0).await.unwrap(), Refreshed::Over, "{id}");
    }
    assert!(!sessions.end("usr_1", "foreign", "revoked").await.unwrap(), "somebody else's session");
    let mut ended = sessions.end_all("usr_1", Some("mine"), "revoked").await.unwrap();
    ended.sort();
    assert_eq!(ended, ["idle", "old", "other"]);
    assert!(sessions.end("usr_1", "mine", "logout").await.unwrap());
    assert!(!sessions.end("usr_1", "mine", "logout").await.unwrap(), "it was over");
    assert_eq!(counter(&sessions.refresh("foreign", 0).await.unwrap()), Some(1));
    sql(
        &database,
        "UPDATE identity.sessions SET expires_at = now() - interval '31 days' WHERE person = 'usr_1'".into(),
    )
    .await;
    assert_eq!(sessions.sweep().await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_sessions_the_oldest_end_and_never_the_one_that_was_just_opened() {
    let sessions = Sessions::new(&database().await, 600.0);
    for n in 0..12 {
        sessions.open(&session(&format!("ses_{n:02}"), "usr_1")).await.unwrap();
    }
    sessions.open(&session("ses_00_foreign", "usr_2")).await.unwrap();
    assert!(sessions.end_oldest("usr_1", "ses_11", 12).await.unwrap().is_empty());
    let mut ended = sessions.end_oldest("usr_1", "ses_11", 10).await.unwrap();
    ended.sort();
    assert_eq!(ended, ["ses_00", "ses_01"]);
    // Its id was given when it was allowed, and others were opened since.
    assert_eq!(sessions.end_oldest("usr_1", "ses_02", 9).await.unwrap(), ["ses_03"]);
    assert_eq!(sessions.of("usr_1").await.unwrap().len(), 9);
    assert!(sessions.holder("ses_00_foreign").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_works_once_for_its_purpose_and_in_time() {
    let codes = Codes::new(&database().await);
    let code = |digest: &[u8], lifetime_seconds| NewCode {
        digest: digest.to_vec(),
        purpose: "verify",
        person: Some("usr_1".into()),
        detail: json!({ "n": 1 }),
        lifetime_seconds,
    };
    codes.keep(&code(b"a", 60.0)).await.unwrap();
    codes.keep(&code(b"late", 0.0)).await.unwrap();
    codes.keep(&code(b"void", 60.0)).await.unwrap();
    assert_eq!(codes.take(b"a", "reset").await.unwrap(), None, "for another purpose");
    assert_eq!(codes.take(b"late", "verify").await.unwrap(), None);
    let used = join_all((0..16).map(|_| codes.take(b"a", "verify"))).await;
    let used: Vec<_> = used.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(used, [(Some("usr_1".to_owned()), json!({ "n": 1 }))]);
    codes.keep(&code(b"a", 60.0)).await.unwrap();
    assert_eq!(codes.take(b"a", "verify").await.unwrap(), None, "it was kept anew");
    codes.void("usr_1", "verify").await.unwrap();
    assert_eq!(codes.take(b"void", "verify").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_is_slowed_down_also_by_many_instances() {
    let database = database().await;
    let codes = Codes::new(&database);
    let pace = Pace { burst: 5, every_seconds: 30.0 };
    let tries = join_all((0..40).map(|_| codes.attempt(b"ann", pace))).await;
    let let_in = tries.iter().filter(|tried| tried.as_ref().unwrap().is_ok()).count();
    assert_eq!(let_in, 5);
    let Err(until) = codes.attempt(b"ann", pace).await.unwrap() else { panic!("a sixth try") };
    let wait = (until - runtime::clock::now()).to_std().unwrap();
    assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(31), "{wait:?}");
    assert!(codes.attempt(b"bob", pace).await.unwrap().is_ok(), "somebody else pays for it");
    sql(&database, "UPDATE identity.attempts SET tat = tat - interval '30 s'".into()).await;
    assert!(codes.attempt(b"ann", pace).await.unwrap().is_ok());
    assert!(codes.attempt(b"ann", pace).await.unwrap().is_err());
    codes.forgive(b"ann").await.unwrap();
    assert!(codes.attempt(b"ann", pace).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_code_of_an_authenticator_and_no_recovery_code_works_twice() {
    let credentials = Credentials::new(&database().await);
    let secret = sealed();
    credentials.enrol("usr_1", Some("hash")).await.unwrap();
    credentials.enrol("usr_1", Some("another")).await.unwrap();
    assert!(!credentials.accept_totp("usr_1", &secret, 100, true).await.unwrap(), "there is no authenticator");
    assert!(credentials.prepare_totp("usr_1", &secret).await.unwrap());
    let accepted = join_all((0..16).map(|_| credentials.accept_totp("usr_1", &secret, 100, true))).await;
    assert_eq!(accepted.into_iter().filter(|one| *one.as_ref().unwrap()).count(), 1);
    assert!(!credentials.accept_totp("usr_1", &secret, 99, false).await.unwrap(), "an older code");
    assert!(credentials.accept_totp("usr_1", &secret, 101, false).await.unwrap());
    let other = Sealed { ct: "other".into(), ..sealed() };
    assert!(!credentials.accept_totp("usr_1", &other, 102, false).await.unwrap(), "a code of another authenticator");
    assert!(!credentials.prepare_totp("usr_1", &secret).await.unwrap(), "one is in use");

    let digests: Vec<Vec<u8>> = (0..10_u8).map(|n| vec![n]).collect();
    assert_eq!(credentials.renew_codes("usr_1", &digests).await.unwrap(), Some(1));
    let used = join_all((0..16).map(|_| credentials.use_code("usr_1", &[3]))).await;
    assert_eq!(used.into_iter().filter(|one| *one.as_ref().unwrap()).count(), 1);
    assert!(!credentials.use_code("usr_2", &[4]).await.unwrap(), "somebody else's code");
    let known = credentials.of("usr_1").await.unwrap().unwrap();
    assert_eq!((known.password_hash.as_deref(), known.password_number), (Some("hash"), 1));
    assert_eq!((known.totp_enabled, known.recovery_number, known.recovery_left), (true, 1, 9));
    assert_eq!(credentials.renew_codes("usr_1", &[vec![42]]).await.unwrap(), Some(2));
    assert!(!credentials.use_code("usr_1", &[4]).await.unwrap(), "a code of the old set");
    credentials.disable_totp("usr_1").await.unwrap();
    assert!(!credentials.accept_totp("usr_1", &secret, 102, false).await.unwrap());
    credentials.erase("usr_1").await.unwrap();
    assert_eq!(credentials.of("usr_1").await.unwrap(), None);
    assert_eq!(credentials.renew_codes("usr_1", &digests).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_new_passwords_at_once_one_counts_and_sessions_end_with_the_old_one() {
    let database = database().await;
    let (credentials, sessions) = (Credentials::new(&database), Sessions::new(&database, 600.0));
    credentials.enrol("usr_1", Some("first")).await.unwrap();
    let hashes: Vec<String> = (0..8).map(|n| format!("hash-{n}")).collect();
    let set = join_all(hashes.iter().map(|hash| credentials.set_password("usr_1", 1, hash, None))).await;
    assert_eq!(set.into_iter().filter(|one| one.as_ref().unwrap().is_some()).count(), 1);
    assert_eq!(credentials.of("usr_1").await.unwrap().unwrap().password_number, 2);
    // Whoever has shown the old one opens nothing any more; whoever has shown the new one does.
    let opening = |id: &str, number| NewSession { password_number: Some(number), ..session(id, "usr_1") };
    assert!(!sessions.open(&opening("late", 1)).await.unwrap());
    assert!(sessions.open(&opening("new", 2)).await.unwrap());
    assert!(sessions.open(&opening("new", 2)).await.unwrap(), "the same again");
    // A better hash of the old password does not replace the new one.
    credentials.rehash("usr_1", "first", "first, better").await.unwrap();
    let known = credentials.of("usr_1").await.unwrap().unwrap().password_hash.unwrap();
    assert!(hashes.contains(&known), "{known}");
    // Somebody who came by a provider.
    credentials.enrol("usr_2", None).await.unwrap();
    assert_eq!(credentials.set_password("usr_2", 0, "hash", None).await.unwrap(), Some(vec![]));
    // Sessions end with the password, but the one in which it was changed.
    sessions.open(&opening("other", 2)).await.unwrap();
    let ended = credentials.set_password("usr_1", 2, "hash", Some("new")).await.unwrap();
    assert_eq!(ended, Some(vec!["other".to_owned()]));
    assert!(!sessions.open(&opening("other", 3)).await.unwrap(), "it has ended");
    assert_eq!(sessions.holder("new").await.unwrap().as_deref(), Some("usr_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_hears_what_one_person_has_decided_and_signs_in_once() {
    let database = database().await;
    let devices = Devices::new(&database);
    let new = |device: &[u8], user_code: &[u8]| NewDevice {
        device: device.to_vec(),
        user_code: user_code.to_vec(),
        about: b"wrapped".to_vec(),
        lifetime_seconds: 60.0,
        interval_seconds: 5,
    };
    assert!(devices.ask(&new(b"d1", b"u1")).await.unwrap());
    assert!(!devices.ask(&new(b"d2", b"u1")).await.unwrap(), "two devices show the same code");
    assert_eq!(devices.poll(b"d2").await.unwrap(), Polled::Unknown);
    assert_eq!(devices.poll(b"d1").await.unwrap(), Polled::Pending { hasty: false });
    assert_eq!(devices.poll(b"d1").await.unwrap(), Polled::Pending { hasty: true });
    // It has ten seconds to wait now.
    sql(&database, "UPDATE identity.devices SET polled_at = now() - interval '7 s'".into()).await;
    assert_eq!(devices.poll(b"d1").await.unwrap(), Polled::Pending { hasty: true });

    let people: Vec<Approval> = (0..16)
        .map(|n| Approval {
            person: format!("usr_{n}"),
            session: format!("ses_{n}"),
            amr: vec!["device".into()],
            auth_time: "2026-11-20T18:30:05Z".parse().unwrap(),
            tenant: None,
            password_number: 1,
        })
        .collect();
    let decided = join_all(people.iter().map(|person| devices.decide(b"u1", true, person))).await;
    let winners: Vec<usize> = (0..16).filter(|n| *decided[*n].as_ref().unwrap()).collect();
    let &[winner] = winners.as_slice() else { panic!("{} people have decided", winners.len()) };
    assert_eq!(devices.show(b"u1").await.unwrap(), None);
    let again = Approval { session: "ses_again".into(), ..people[winner].clone() };
    assert!(devices.decide(b"u1", true, &again).await.unwrap(), "an answer got lost");
    assert!(!devices.decide(b"u1", false, &again).await.unwrap(), "what is let in is not turned away");
    for _ in 0..2 {
        assert_eq!(devices.poll(b"d1").await.unwrap(), Polled::Approved(people[winner].clone()));
    }
    for _ in 0..2 {
        assert!(devices.used(b"d1").await.unwrap());
    }
    devices.withdraw(&people[winner].person).await.unwrap();
    assert!(devices.used(b"d1").await.unwrap(), "who has come is not turned away");
    assert_eq!(devices.poll(b"d1").await.unwrap(), Polled::Unknown);

    assert!(devices.ask(&new(b"d5", b"u5")).await.unwrap());
    assert!(devices.decide(b"u5", true, &people[0]).await.unwrap());
    assert!(matches!(devices.poll(b"d5").await.unwrap(), Polled::Approved(_)));
    devices.withdraw(&people[1].person).await.unwrap();
    devices.withdraw(&people[0].person).await.unwrap();
    assert!(!devices.used(b"d5").await.unwrap(), "it comes in after it was turned away");
    assert_eq!(devices.poll(b"d5").await.unwrap(), Polled::Denied);
    assert!(devices.ask(&new(b"d3", b"u3")).await.unwrap());
    assert!(devices.decide(b"u3", false, &people[0]).await.unwrap());
    assert_eq!(devices.poll(b"d3").await.unwrap(), Polled::Denied);
    assert!(devices.ask(&new(b"d4", b"u4")).await.unwrap());
    sql(&database, "UPDATE identity.devices SET expires_at = now() - interval '25 hours'".into()).await;
    assert!(!devices.decide(b"u4", true, &people[0]).await.unwrap());
    assert_eq!(devices.poll(b"d4").await.unwrap(), Polled::Expired);
    assert_eq!(devices.sweep().await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_about_a_person_goes_with_them_or_there_is_a_reason() {
    // What stays: who is a member, who owns a key and what happened are the history of tenants, and end there; the row of a
    // destroyed key keeps another one from being made; an erasure says what was done.
    const STAYS: [&str; 5] =
        ["identity.api_keys", "identity.erasures", "identity.subject_keys", "airstream.effects", "airstream.parked"];
    let database = database().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT n.nspname || '.' || c.relname
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND n.nspname IN ('airstream', 'identity', 'mail')
             AND a.attname IN ('person', 'about', 'owner', 'subject') ORDER BY 1",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(tables.len() >= 10, "{tables:?}");
    for table in tables.iter().filter(|table| !STAYS.contains(&table.as_str())) {
        let gone = OWN_ROWS.iter().any(|(_, delete)| delete.starts_with(&format!("DELETE FROM {table} WHERE ")));
        assert!(gone, "{table} is about people, and nothing of it is removed when one is erased: see OWN_ROWS");
    }
}
