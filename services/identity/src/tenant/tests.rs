use kernel::scenario::{assert_laws, assert_survives_storage, given};
use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).expect("a moment")
}

fn created() -> Created {
    Created { name: "Acme".into(), owner: "olga".into() }
}

fn joined(person: &str, role: Role) -> Event {
    MemberJoined { person: person.into(), role, invite: format!("for-{person}") }.into()
}

fn invited(by: &str, invite: &str, role: Role) -> MemberInvited {
    let email = Sealed { v: 1, sub: invite.into(), nonce: "n".into(), ct: "c".into() };
    MemberInvited { invite: invite.into(), email, role, by: by.into(), expires_at: at(100) }
}

fn invite(by: &str, id: &str, role: Role) -> Command {
    Command::Invite { invited: invited(by, id, role), at: at(0) }
}

fn accept(id: &str, person: &str, seconds: i64) -> Command {
    Command::Accept { invite: id.into(), person: person.into(), at: at(seconds) }
}

fn change_role(by: &str, person: &str, role: Role) -> Command {
    Command::ChangeRole { by: by.into(), person: person.into(), role }
}

fn remove(by: &str, person: &str) -> Command {
    Command::Remove { by: by.into(), person: person.into() }
}

fn left(person: &str, reason: &str) -> Event {
    MemberLeft { person: person.into(), reason: reason.into() }.into()
}

#[test]
fn a_tenant_is_never_left_without_an_owner() {
    given::<Tenants>([created().into(), joined("adam", Role::Admin)])
        .when(remove("olga", "olga"))
        .then_rejected(Refusal::LastOwner)
        .when(change_role("olga", "olga", Role::Admin))
        .then_rejected(Refusal::LastOwner)
        .when(change_role("olga", "adam", Role::Owner))
        .then([RoleChanged { person: "adam".into(), role: Role::Owner }.into()])
        .when(remove("olga", "olga"))
        .then([left("olga", "left")])
        .when(remove("adam", "adam"))
        .then_rejected(Refusal::LastOwner);
}

#[test]
fn nobody_gives_or_takes_what_they_could_not_have() {
    let given = given::<Tenants>([
        created().into(),
        joined("adam", Role::Admin),
        joined("mona", Role::Member),
        joined("vera", Role::Viewer),
    ]);
    let forbidden = |needed| Refusal::Forbidden { needed };
    given
        .when(change_role("adam", "vera", Role::Owner))
        .then_rejected(forbidden(Role::Owner))
        .when(change_role("adam", "olga", Role::Viewer))
        .then_rejected(forbidden(Role::Owner))
        .when(change_role("mona", "vera", Role::Member))
        .then_rejected(forbidden(Role::Admin))
        .when(invite("adam", "i", Role::Owner))
        .then_rejected(forbidden(Role::Owner))
        .when(invite("mona", "i", Role::Viewer))
        .then_rejected(forbidden(Role::Admin))
        .when(remove("adam", "olga"))
        .then_rejected(forbidden(Role::Owner))
        .when(remove("vera", "mona"))
        .then_rejected(forbidden(Role::Admin))
        .when(remove("vera", "vera"))
        .then([left("vera", "left")])
        .when(remove("adam", "mona"))
        .then([left("mona", "removed")]);
}

#[test]
fn to_strangers_there_is_no_tenant() {
    let given = given::<Tenants>([created().into()]);
    given
        .when(change_role("eve", "eve", Role::Owner))
        .then_rejected(Refusal::Unknown)
        .when(remove("eve", "olga"))
        .then_rejected(Refusal::Unknown)
        .when(Command::Rename { by: "eve".into(), name: "Evil".into() })
        .then_rejected(Refusal::Unknown)
        .when(Command::Create(Created { name: "Acme".into(), owner: "eve".into() }))
        .then_rejected(Refusal::Taken);
}

#[test]
fn an_invitation_is_accepted_once_and_in_time() {
    given::<Tenants>([created().into()])
        .when(invite("olga", "i", Role::Member))
        .then([invited("olga", "i", Role::Member).into()])
        .when(invite("olga", "i", Role::Member))
        .then_nothing()
        .when(accept("i", "mona", 100))
        .then_rejected(Refusal::InviteExpired)
        .when(accept("i", "mona", 99))
        .then([MemberJoined { person: "mona".into(), role: Role::Member, invite: "i".into() }.into()])
        .when(accept("i", "mona", 99))
        .then_nothing()
        .when(accept("i", "eve", 99))
        .then_rejected(Refusal::UnknownInvite);
}

#[test]
fn an_invitation_takes_nothing_away_from_a_member() {
    given::<Tenants>([created().into(), invited("olga", "i", Role::Viewer).into(), joined("adam", Role::Admin)])
        .when(accept("i", "adam", 1))
        .then([InviteRevoked { invite: "i".into() }.into()]);
}

#[test]
fn an_invitation_is_declined_once_and_then_cannot_be_accepted() {
    given::<Tenants>([created().into(), invited("olga", "i", Role::Viewer).into()])
        .when(Command::Decline { invite: "i".into() })
        .then([InviteRevoked { invite: "i".into() }.into()])
        .when(Command::Decline { invite: "i".into() })
        .then_nothing()
        .when(accept("i", "eve", 1))
        .then_rejected(Refusal::UnknownInvite);
}

#[test]
fn when_the_last_owner_is_erased_the_strongest_of_the_others_follows() {
    let forget = |person: &str| Command::Forget { person: person.into() };
    given::<Tenants>([created().into(), joined("vera", Role::Viewer), joined("adam", Role::Admin)])
        .when(forget("olga"))
        .then([RoleChanged { person: "adam".into(), role: Role::Owner }.into(), left("olga", "erased")])
        .when(forget("olga"))
        .then_nothing()
        .when(forget("vera"))
        .then([left("vera", "erased")])
        .when(forget("adam"))
        .then([left("adam", "erased"), Closed {}.into()])
        .when(accept("i", "eve", 1))
        .then_rejected(Refusal::Unknown);
}

#[test]
fn a_name_is_a_line_that_people_can_read() {
    assert_eq!(name_of("  Acme & Söhne \u{20}").expect("a name"), "Acme & Söhne");
    assert_eq!(name_of(&"ö".repeat(MAX_NAME_CHARS)).expect("a name").chars().count(), MAX_NAME_CHARS);
    let long = "ö".repeat(MAX_NAME_CHARS + 1);
    for bad in ["", "  ", "a\nb", "a\u{0}b", &long] {
        assert_eq!(name_of(bad).expect_err("no name").code, "invalid", "{bad:?}");
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let person = || prop::sample::select(vec!["olga", "adam", "mona", "eve"]);
    let id = || prop::sample::select(vec!["i", "j"]);
    let role = || prop::sample::select(Role::ALL.to_vec());
    prop_oneof![
        person().prop_map(|owner| Command::Create(Created { name: "Acme".into(), owner: owner.into() })),
        (person(), id()).prop_map(|(by, name)| Command::Rename { by: by.into(), name: name.into() }),
        (person(), id(), role()).prop_map(|(by, id, role)| invite(by, id, role)),
        (person(), id()).prop_map(|(by, id)| Command::RevokeInvite { by: by.into(), invite: id.into() }),
        id().prop_map(|id| Command::Decline { invite: id.into() }),
        (id(), person(), 0..110_i64).prop_map(|(id, person, now)| accept(id, person, now)),
        (person(), person(), role()).prop_map(|(by, person, role)| change_role(by, person, role)),
        (person(), person()).prop_map(|(by, person)| remove(by, person)),
        person().prop_map(|person| Command::Forget { person: person.into() }),
    ]
}

proptest! {
    #[test]
    fn the_laws_hold_for_any_sequence(commands in prop::collection::vec(any_command(), 0..60)) {
        let mut state = State::default();
        for command in commands {
            state = assert_survives_storage(&assert_laws::<Tenants>(state, command));
            if let Some(tenant) = state.tenant() {
                prop_assert!(tenant.members.values().any(|role| *role == Role::Owner), "nobody owns it: {tenant:?}");
            }
        }
    }
}
