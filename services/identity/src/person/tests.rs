use kernel::scenario::{assert_laws, assert_survives_storage, given};
use proptest::prelude::*;

use super::*;

fn sealed(text: &str) -> Sealed {
    Sealed { v: 1, sub: "usr_1".into(), nonce: "n".into(), ct: text.into() }
}

fn registered(method: &str) -> Registered {
    Registered { email: sealed("ann@example.org"), username: None, name: None, method: method.into() }
}

fn register(person: Registered) -> Command {
    let link = (person.method != PASSWORD).then(|| linked(&person.method, "7"));
    Command::Register(Box::new(Register { person, link, email_confirmed: false }))
}

fn opened(session: &str) -> SessionOpened {
    SessionOpened { session: session.into(), method: PASSWORD.into(), origin: sealed("here") }
}

fn ended(session: &str, reason: &str) -> SessionEnded {
    SessionEnded { session: session.into(), reason: reason.into() }
}

fn all_ended(keep: Option<&str>, reason: &str) -> SessionsEnded {
    SessionsEnded { keep: keep.map(str::to_owned), reason: reason.into() }
}

fn linked(provider: &str, subject: &str) -> IdentityLinked {
    IdentityLinked { provider: provider.into(), subject: sealed(subject) }
}

fn unlinked(provider: &str) -> IdentityUnlinked {
    IdentityUnlinked { provider: provider.into() }
}

#[test]
fn an_id_is_registered_once() {
    given::<People>([])
        .when(Command::ConfirmEmail)
        .then_rejected(Refusal::Unknown)
        .when(register(registered(PASSWORD)))
        .then([registered(PASSWORD).into()])
        .when(register(registered(PASSWORD)))
        .then_nothing()
        .when(register(Registered { email: sealed("eve@example.org"), ..registered(PASSWORD) }))
        .then_rejected(Refusal::Taken);
}

#[test]
fn whom_a_provider_vouches_for_is_linked_from_the_first_moment() {
    let register = |link| {
        let person = registered("github");
        Command::Register(Box::new(Register { person, link, email_confirmed: true }))
    };
    given::<People>([])
        .when(register(None))
        .then_rejected(Refusal::LastWayIn)
        .when(register(Some(linked("github", "7"))))
        .then([registered("github").into(), linked("github", "7").into(), EmailConfirmed {}.into()]);
}

#[test]
fn a_new_password_ends_every_session_but_the_one_it_was_changed_in() {
    let change = |number, keep: Option<&str>| {
        Command::ChangePassword(ChangePassword { number, by: "known".into(), keep: keep.map(str::to_owned) })
    };
    given::<People>([registered(PASSWORD).into(), opened("a").into(), opened("b").into(), opened("c").into()])
        .when(change(2, Some("b")))
        .then([
            PasswordChanged { number: 2, by: "known".into() }.into(),
            all_ended(Some("b"), "password_changed").into(),
        ])
        .when(change(2, None))
        .then_nothing()
        .when(change(3, None))
        .then([PasswordChanged { number: 3, by: "known".into() }.into(), all_ended(None, "password_changed").into()]);
}

#[test]
fn there_is_always_a_way_in() {
    given::<People>([registered("github").into(), linked("github", "7").into()])
        .when(Command::Unlink(unlinked("github")))
        .then_rejected(Refusal::LastWayIn)
        .when(Command::Unlink(unlinked("google")))
        .then_rejected(Refusal::NotLinked { provider: "google".into() })
        .when(Command::Link(linked("google", "8")))
        .then([linked("google", "8").into()])
        .when(Command::Link(linked("google", "9")))
        .then_rejected(Refusal::LinkedElsewhere { provider: "google".into() })
        .when(Command::Unlink(unlinked("github")))
        .then([unlinked("github").into()])
        .when(Command::ChangePassword(ChangePassword { number: 1, by: "reset".into(), keep: None }))
        .then([PasswordChanged { number: 1, by: "reset".into() }.into()])
        .when(Command::Unlink(unlinked("google")))
        .then([unlinked("google").into()]);
}

#[test]
fn a_token_that_comes_twice_ends_its_session_and_no_other() {
    let reused = RefreshReused { session: "a".into(), origin: sealed("there") };
    given::<People>([registered(PASSWORD).into(), opened("a").into(), opened("b").into()])
        .when(Command::ReportReuse(reused.clone()))
        .then([reused.clone().into(), ended("a", "refresh_reused").into()])
        .when(Command::ReportReuse(reused))
        .then_nothing()
        .when(Command::EndSession(ended("b", "logout")))
        .then([ended("b", "logout").into()]);
}

#[test]
fn however_many_sessions_end_it_is_one_event() {
    // So many could be open before there was a limit; an event for each would be more than a commit may hold.
    let many = (0..3_000).map(|n| opened(&format!("ses_{n:04}")).into());
    let person = || std::iter::once(registered(PASSWORD).into()).chain(many.clone()).collect::<Vec<Event>>();
    let all = |keep: Option<&str>| {
        Command::EndSessions(EndSessions { keep: keep.map(str::to_owned), reason: "revoked".into() })
    };
    given::<People>(person())
        .when(all(Some("ses_0007")))
        .then([all_ended(Some("ses_0007"), "revoked").into()])
        .when(all(Some("ses_0007")))
        .then_nothing()
        .when(all(None))
        .then([all_ended(None, "revoked").into()])
        .when(all(None))
        .then_nothing();
    given::<People>(person()).when(Command::Erase).then([all_ended(None, "erased").into(), Erased {}.into()]);
    let opening = Command::OpenSession(opened("ses_9999"));
    let first = (0..MAX_ENDED_AT_ONCE).map(|n| ended(&format!("ses_{n:04}"), "too_many").into());
    given::<People>(person()).when(opening).then(first.chain([opened("ses_9999").into()]).collect::<Vec<_>>());
}

#[test]
fn of_too_many_sessions_the_oldest_ends() {
    let sessions = (0..MAX_SESSIONS).map(|n| opened(&format!("ses_{n:04}")).into());
    given::<People>(std::iter::once(registered(PASSWORD).into()).chain(sessions).collect::<Vec<Event>>())
        .when(Command::OpenSession(opened("ses_0099")))
        .then_nothing()
        .when(Command::OpenSession(opened("ses_0100")))
        .then([ended("ses_0000", "too_many").into(), opened("ses_0100").into()])
        // Also when it was allowed long ago, and comes only now.
        .when(Command::OpenSession(opened("ses_0000")))
        .then([ended("ses_0001", "too_many").into(), opened("ses_0000").into()]);
}

#[test]
fn what_a_profile_says_already_is_not_said_again() {
    let change = ProfileChanged { name: Some(sealed("Ann")), locale: Some("de-CH".into()), username: None };
    given::<People>([registered(PASSWORD).into()])
        .when(Command::ChangeProfile(ProfileChanged::default()))
        .then_nothing()
        .when(Command::ChangeProfile(change.clone()))
        .then([change.clone().into()])
        .when(Command::ChangeProfile(ProfileChanged { locale: None, ..change }))
        .then_nothing();
}

#[test]
fn who_is_erased_is_gone_for_good() {
    given::<People>([registered(PASSWORD).into(), opened("a").into()])
        .when(Command::Erase)
        .then([all_ended(None, "erased").into(), Erased {}.into()])
        .when(Command::Erase)
        .then_nothing()
        .when(Command::OpenSession(opened("b")))
        .then_rejected(Refusal::Erased)
        .when(register(registered(PASSWORD)))
        .then_rejected(Refusal::Erased);
}

fn any_command() -> impl Strategy<Value = Command> {
    let word = || prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("c".to_owned())];
    let keep = || prop::option::of(word());
    prop_oneof![
        (word(), word()).prop_map(|(email, method)| register(Registered {
            email: sealed(&email),
            method: if method == "a" { PASSWORD.into() } else { method },
            username: None,
            name: None,
        })),
        Just(Command::ConfirmEmail),
        word().prop_map(|email| Command::ChangeEmail(EmailChanged { email: sealed(&email) })),
        (keep(), keep(), keep()).prop_map(|(username, name, locale)| Command::ChangeProfile(ProfileChanged {
            username: username.map(|text| sealed(&text)),
            name: name.map(|text| sealed(&text)),
            locale,
        })),
        (0..4_u32, keep()).prop_map(|(number, keep)| Command::ChangePassword(ChangePassword {
            number,
            by: "known".into(),
            keep
        })),
        Just(Command::EnableTotp),
        Just(Command::DisableTotp),
        (0..4_u32).prop_map(|number| Command::RenewRecoveryCodes(RecoveryCodesRenewed { number })),
        (word(), word()).prop_map(|(provider, subject)| Command::Link(linked(&provider, &subject))),
        word().prop_map(|provider| Command::Unlink(unlinked(&provider))),
        word().prop_map(|session| Command::OpenSession(opened(&session))),
        word().prop_map(|session| Command::EndSession(ended(&session, "logout"))),
        keep().prop_map(|keep| Command::EndSessions(EndSessions { keep, reason: "revoked".into() })),
        word().prop_map(|session| Command::ReportReuse(RefreshReused { session, origin: sealed("there") })),
        word().prop_map(|export| Command::RequestExport(ExportRequested { export })),
        Just(Command::Erase),
    ]
}

proptest! {
    #[test]
    fn the_laws_hold_for_any_sequence(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut state = State::default();
        let mut erased = false;
        for command in commands {
            state = assert_survives_storage(&assert_laws::<People>(state, command));
            if let Some(person) = state.person() {
                prop_assert!(!erased, "somebody came back");
                prop_assert!(person.passwords > 0 || !person.links.is_empty(), "nobody can sign in");
            }
            erased |= state == State::Erased;
        }
    }
}

#[test]
fn an_archive_is_asked_for_once_under_its_name() {
    let request = |export: &str| ExportRequested { export: export.into() };
    given::<People>([registered(PASSWORD).into()])
        .when(Command::RequestExport(request("a")))
        .then([request("a").into()])
        .when(Command::RequestExport(request("a")))
        .then_nothing()
        .when(Command::RequestExport(request("b")))
        .then([request("b").into()])
        .when(Command::Erase)
        .then([Erased {}.into()])
        .when(Command::RequestExport(request("c")))
        .then_rejected(Refusal::Erased);
}
