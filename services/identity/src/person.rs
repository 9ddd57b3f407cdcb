//! The decider of people.
//!
//! It protects two invariants: somebody who has registered can always sign in by something, until they are erased; and after
//! a change of password or an erasure no session goes on that began before.
//!
//! All its commands are the platform's own: whether a password or a code is right is known where those are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use events::person::{
    self, EmailChanged, EmailConfirmed, Erased, Event, ExportRequested, IdentityLinked, IdentityUnlinked,
    PasswordChanged, ProfileChanged, RecoveryCodesRenewed, RefreshReused, Registered, SessionEnded, SessionOpened,
    SessionsEnded, TotpDisabled, TotpEnabled,
};
use kernel::{Access, CommandSet, CommandSpec, Decider, Problem, Sealed, Stamp};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The method of somebody who registered with a password.
pub const PASSWORD: &str = "password";

/// Sessions that somebody may have: opening another one ends the oldest.
pub const MAX_SESSIONS: usize = 100;
/// Sessions that end at most when another one is opened. Only people from before there was a limit have more to end; a commit
/// that names thousands would be too large.
const MAX_ENDED_AT_ONCE: usize = 50;

/// What may be asked of a person.
#[derive(Debug, Clone)]
pub enum Command {
    /// Somebody registered.
    Register(Box<Register>),
    /// A message to the address was answered.
    ConfirmEmail,
    /// There is another confirmed address.
    ChangeEmail(EmailChanged),
    /// Something else is said about them.
    ChangeProfile(ProfileChanged),
    /// There is another password.
    ChangePassword(ChangePassword),
    /// A second factor is asked for from now on.
    EnableTotp,
    /// No second factor is asked for from now on.
    DisableTotp,
    /// There are new recovery codes.
    RenewRecoveryCodes(RecoveryCodesRenewed),
    /// They may also sign in by another identity.
    Link(IdentityLinked),
    /// They may not sign in by it any more.
    Unlink(IdentityUnlinked),
    /// They signed in.
    OpenSession(SessionOpened),
    /// A session is over.
    EndSession(SessionEnded),
    /// All sessions are over, but perhaps one.
    EndSessions(EndSessions),
    /// A refresh token came a second time.
    ReportReuse(RefreshReused),
    /// They want everything that is stored about them.
    RequestExport(ExportRequested),
    /// They are to be forgotten.
    Erase,
}

/// A registration, with what a provider has vouched for.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Who.
    pub person: Registered,
    /// Who they are at a provider; needed when they have no password.
    #[serde(default)]
    pub link: Option<IdentityLinked>,
    /// Whether the provider has confirmed the address.
    #[serde(default)]
    pub email_confirmed: bool,
}

/// Another password.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// Which password it is.
    pub number: u32,
    /// `known` or `reset`.
    pub by: String,
    /// The session in which it was changed, which goes on.
    pub keep: Option<String>,
}

/// The end of several sessions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndSessions {
    /// The one that goes on.
    pub keep: Option<String>,
    /// See [`SessionEnded`].
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

const fn internal(name: &'static str, about: &'static str) -> CommandSpec {
    CommandSpec { name, access: Access::Internal, about }
}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        internal("register", "Records that somebody registered."),
        internal("confirm-email", "Records that the address is theirs."),
        internal("change-email", "Records another confirmed address."),
        internal("change-profile", "Changes what is said about them."),
        internal("change-password", "Records that there is another password, and ends other sessions."),
        internal("enable-totp", "Records that a second factor is asked for."),
        internal("disable-totp", "Records that no second factor is asked for."),
        internal("renew-recovery-codes", "Records that there are new recovery codes."),
        internal("link", "Records another identity to sign in by."),
        internal("unlink", "Records that an identity is not for signing in any more."),
        internal("open-session", "Records that they signed in."),
        internal("end-session", "Records that a session is over."),
        internal("end-sessions", "Records that all sessions but one are over."),
        internal("report-reuse", "Records that a refresh token came twice, and ends its session."),
        internal("request-export", "Records that they want everything that is stored about them."),
        internal("erase", "Records that they are forgotten."),
    ];

    fn parse(name: &str, body: &[u8], _: &Stamp) -> Result<Self, Problem> {
        let nothing = |command| kernel::object::<Nothing>(body).map(|Nothing {}| command);
        match name {
            "register" => kernel::object(body).map(Self::Register),
            "confirm-email" => nothing(Self::ConfirmEmail),
            "change-email" => kernel::object(body).map(Self::ChangeEmail),
            "change-profile" => kernel::object(body).map(Self::ChangeProfile),
            "change-password" => kernel::object(body).map(Self::ChangePassword),
            "enable-totp" => nothing(Self::EnableTotp),
            "disable-totp" => nothing(Self::DisableTotp),
            "renew-recovery-codes" => kernel::object(body).map(Self::RenewRecoveryCodes),
            "link" => kernel::object(body).map(Self::Link),
            "unlink" => kernel::object(body).map(Self::Unlink),
            "open-session" => kernel::object(body).map(Self::OpenSession),
            "end-session" => kernel::object(body).map(Self::EndSession),
            "end-sessions" => kernel::object(body).map(Self::EndSessions),
            "report-reuse" => kernel::object(body).map(Self::ReportReuse),
            "request-export" => kernel::object(body).map(Self::RequestExport),
            "erase" => nothing(Self::Erase),
            _ => Err(Problem::not_found(format!("A person knows no command `{name}`."))),
        }
    }
}

/// What is remembered of a person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has registered under this id.
    #[default]
    Unknown,
    /// Somebody has.
    Registered(Box<Person>),
    /// They were here once.
    Erased,
}

impl State {
    /// The person, if there is one.
    #[must_use]
    pub fn person(&self) -> Option<&Person> {
        match self {
            Self::Registered(person) => Some(person),
            Self::Unknown | Self::Erased => None,
        }
    }
}

/// A person who has registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// The address they registered with.
    pub registered_email: Sealed,
    /// Their address.
    pub email: Sealed,
    /// Whether it is known to be theirs.
    pub email_confirmed: bool,
    /// A name to log in by.
    pub username: Option<Sealed>,
    /// What they are called.
    pub name: Option<Sealed>,
    /// Their language.
    pub locale: Option<String>,
    /// How many passwords they have had; none: they cannot sign in by one.
    pub passwords: u32,
    /// Whether a second factor is asked for.
    pub totp: bool,
    /// How many sets of recovery codes they have had.
    pub recovery_codes: u32,
    /// Identities by provider.
    pub links: BTreeMap<String, Sealed>,
    /// Sessions that have not ended. One that has expired is among them until newer ones need its place.
    pub sessions: BTreeSet<String>,
    /// The archive that they asked for last.
    pub last_export: Option<String>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such person.
    Unknown,
    /// The id belongs to somebody else.
    Taken,
    /// They are gone, for good.
    Erased,
    /// Nothing would be left to sign in by.
    LastWayIn,
    /// They have no identity of that provider.
    NotLinked {
        /// Which provider.
        provider: String,
    },
    /// They have another identity of that provider.
    LinkedElsewhere {
        /// Which provider.
        provider: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("There is no such person."),
            Self::Taken => f.write_str("Somebody else has registered under this id."),
            Self::Erased => f.write_str("This person was erased; nothing can be done for them any more."),
            Self::LastWayIn => f.write_str(
                "Without it there would be no way left to sign in: set a password, or link another identity first.",
            ),
            Self::NotLinked { provider } => write!(f, "No identity of `{provider}` is linked."),
            Self::LinkedElsewhere { provider } => {
                write!(f, "Another identity of `{provider}` is linked already; unlink that one first.")
            }
        }
    }
}

impl kernel::Rejection for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_person",
            Self::Taken => "person_id_taken",
            Self::Erased => "erased",
            Self::LastWayIn => "last_way_in",
            Self::NotLinked { .. } => "not_linked",
            Self::LinkedElsewhere { .. } => "linked_elsewhere",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Unknown | Self::NotLinked { .. } => 404,
            Self::Erased => 410,
            Self::Taken | Self::LastWayIn | Self::LinkedElsewhere { .. } => 409,
        }
    }
}

/// The decider of the category `person`.
#[derive(Debug, Clone, Copy)]
pub struct People;

impl Decider for People {
    const CATEGORY: &'static str = person::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Refusal;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Refusal> {
        match (state, command) {
            (State::Unknown, Command::Register(register)) => register.events(),
            (State::Unknown, _) => Err(Refusal::Unknown),
            (State::Registered(person), Command::Register(register)) => match person.registered_as(&register.person) {
                true => Ok(vec![]),
                false => Err(Refusal::Taken),
            },
            (State::Registered(person), command) => decide(person, command),
            (State::Erased, Command::Erase | Command::EndSession(_) | Command::EndSessions(_)) => Ok(vec![]),
            (State::Erased, _) => Err(Refusal::Erased),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match (state, event) {
            (State::Unknown, Event::Registered(registered)) => State::Registered(Box::new(Person::new(registered))),
            (State::Registered(_), Event::Erased(_)) => State::Erased,
            (State::Registered(mut person), event) => {
                person.evolve(event);
                State::Registered(person)
            }
            (state, _) => state,
        }
    }
}

fn decide(person: &Person, command: Command) -> Result<Vec<Event>, Refusal> {
    Ok(match command {
        Command::Register(_) => vec![],
        Command::ConfirmEmail => unless(person.email_confirmed, EmailConfirmed {}),
        Command::ChangeEmail(changed) => unless(person.email_confirmed && person.email == changed.email, changed),
        Command::ChangeProfile(changed) => unless(person.says(&changed), changed),
        Command::ChangePassword(ChangePassword { number, .. }) if number <= person.passwords => vec![],
        Command::ChangePassword(ChangePassword { number, by, keep }) => {
            let ended = person.all_ended(keep, "password_changed");
            std::iter::once(PasswordChanged { number, by }.into()).chain(ended).collect()
        }
        Command::EnableTotp => unless(person.totp, TotpEnabled {}),
        Command::DisableTotp => unless(!person.totp, TotpDisabled {}),
        Command::RenewRecoveryCodes(renewed) => unless(renewed.number <= person.recovery_codes, renewed),
        Command::Link(linked) => match person.links.get(&linked.provider) {
            Some(subject) if *subject == linked.subject => vec![],
            Some(_) => return Err(Refusal::LinkedElsewhere { provider: linked.provider }),
            None => vec![linked.into()],
        },
        Command::Unlink(unlinked) => match person.links.contains_key(&unlinked.provider) {
            false => return Err(Refusal::NotLinked { provider: unlinked.provider }),
            true if person.passwords == 0 && person.links.len() == 1 => return Err(Refusal::LastWayIn),
            true => vec![unlinked.into()],
        },
        Command::OpenSession(opened) if person.sessions.contains(&opened.session) => vec![],
        Command::OpenSession(opened) => person.too_many().chain([opened.into()]).collect(),
        Command::EndSession(ended) => unless(!person.sessions.contains(&ended.session), ended),
        Command::EndSessions(EndSessions { keep, reason }) => person.all_ended(keep, &reason).into_iter().collect(),
        Command::ReportReuse(reused) => match person.sessions.contains(&reused.session) {
            false => vec![],
            true => {
                let ended = SessionEnded { session: reused.session.clone(), reason: "refresh_reused".to_owned() };
                vec![reused.into(), ended.into()]
            }
        },
        Command::RequestExport(requested) => unless(person.last_export.as_ref() == Some(&requested.export), requested),
        Command::Erase => person.all_ended(None, "erased").into_iter().chain([Erased {}.into()]).collect(),
    })
}

/// What is so already need not happen.
fn unless(already: bool, event: impl Into<Event>) -> Vec<Event> {
    if already { Vec::new() } else { vec![event.into()] }
}

impl Register {
    fn events(self) -> Result<Vec<Event>, Refusal> {
        let Self { person, link, email_confirmed } = self;
        if person.method != PASSWORD && link.is_none() {
            return Err(Refusal::LastWayIn);
        }
        let confirmed = email_confirmed.then_some(EmailConfirmed {});
        let mut events = vec![person.into()];
        events.extend(link.map(Event::from));
        events.extend(confirmed.map(Event::from));
        Ok(events)
    }
}

impl Person {
    fn new(registered: &Registered) -> Self {
        Self {
            registered_email: registered.email.clone(),
            email: registered.email.clone(),
            email_confirmed: false,
            username: registered.username.clone(),
            name: registered.name.clone(),
            locale: None,
            passwords: u32::from(registered.method == PASSWORD),
            totp: false,
            recovery_codes: 0,
            links: BTreeMap::new(),
            sessions: BTreeSet::new(),
            last_export: None,
        }
    }

    /// Whether it was this registration.
    fn registered_as(&self, registered: &Registered) -> bool {
        self.registered_email == registered.email
    }

    /// Whether a change of profile says nothing new.
    fn says(&self, changed: &ProfileChanged) -> bool {
        fn same<T: PartialEq>(is: Option<&T>, wanted: Option<&T>) -> bool {
            wanted.is_none() || is == wanted
        }
        same(self.username.as_ref(), changed.username.as_ref())
            && same(self.name.as_ref(), changed.name.as_ref())
            && same(self.locale.as_ref(), changed.locale.as_ref())
    }

    /// All sessions end, but perhaps one; nothing, if there is no other.
    fn all_ended(&self, keep: Option<String>, reason: &str) -> Option<Event> {
        let others = self.sessions.iter().any(|session| Some(session) != keep.as_ref());
        others.then(|| SessionsEnded { keep, reason: reason.to_owned() }.into())
    }

    /// The oldest sessions end, so that there is room for one more: ids are in the order of time.
    fn too_many(&self) -> impl Iterator<Item = Event> {
        let over = (self.sessions.len() + 1).saturating_sub(MAX_SESSIONS).min(MAX_ENDED_AT_ONCE);
        let ended = |session: &String| SessionEnded { session: session.clone(), reason: "too_many".to_owned() };
        self.sessions.iter().take(over).map(move |session| ended(session).into())
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Registered(_) | Event::RefreshReused(_) | Event::Erased(_) => {}
            Event::EmailConfirmed(_) => self.email_confirmed = true,
            Event::EmailChanged(changed) => {
                self.email = changed.email.clone();
                self.email_confirmed = true;
            }
            Event::ProfileChanged(ProfileChanged { username, name, locale }) => {
                set(&mut self.username, username.as_ref());
                set(&mut self.name, name.as_ref());
                set(&mut self.locale, locale.as_ref());
            }
            Event::PasswordChanged(changed) => self.passwords = self.passwords.max(changed.number),
            Event::RecoveryCodesRenewed(renewed) => self.recovery_codes = self.recovery_codes.max(renewed.number),
            Event::TotpEnabled(_) => self.totp = true,
            Event::TotpDisabled(_) => self.totp = false,
            Event::IdentityLinked(linked) => {
                self.links.insert(linked.provider.clone(), linked.subject.clone());
            }
            Event::IdentityUnlinked(unlinked) => {
                self.links.remove(&unlinked.provider);
            }
            Event::SessionOpened(opened) => {
                self.sessions.insert(opened.session.clone());
            }
            Event::SessionEnded(ended) => {
                self.sessions.remove(&ended.session);
            }
            Event::SessionsEnded(ended) => self.sessions.retain(|session| Some(session) == ended.keep.as_ref()),
            Event::ExportRequested(requested) => self.last_export = Some(requested.export.clone()),
        }
    }
}

fn set<T: Clone>(field: &mut Option<T>, to: Option<&T>) {
    if let Some(to) = to {
        *field = Some(to.clone());
    }
}
