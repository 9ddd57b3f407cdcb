//! Signing in a device that has no keyboard (RFC 8628): it shows a code, its owner types the code where they are signed in.

use kernel::{Problem, Timestamp};
use projections::identity::{Approval, NewDevice, Polled};
use rest::Origin;
use ring::rand::{SecureRandom as _, SystemRandom};
use runtime::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::email::invalid_code;
use super::login::Opening;
use super::proof::{Enough, Proof};
use super::{Accounts, Inner, LoggedIn};
use crate::password::Password;

/// How long somebody may take to type the code, in seconds.
const LIFETIME_SECONDS: i32 = 900;
/// How often a device may ask, in seconds.
const INTERVAL_SECONDS: i32 = 5;
/// How the session of a device was opened; what is wrapped is wrapped as this.
const DEVICE: &str = "device";
/// Letters that make no words, and that nobody takes for each other or for digits (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code that people type: 34 bits, tried at the pace of logins, for a quarter of an hour.
const TYPED_LETTERS: usize = 8;

/// A device that asks.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The code that the device shows us.
    pub device_code: String,
    /// The code that somebody types.
    pub user_code: String,
    /// Seconds that both last.
    pub expires_in: i32,
    /// Seconds from one question of the device to the next.
    pub interval: i32,
}

/// What asks, as whoever is to decide sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// What it calls itself.
    #[schema(example = "airstream on ann-laptop")]
    pub client_name: String,
    /// Where it asks from.
    #[schema(example = "203.0.113.7")]
    pub address: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub asked_at: Timestamp,
}

/// What a device hears.
#[derive(Debug)]
pub enum Asked {
    /// Nobody has decided yet.
    Pending,
    /// It asks more often than it may.
    SlowDown,
    /// Nobody has decided in time.
    Expired,
    /// Somebody has said no.
    Denied,
    /// No such device asks.
    Unknown,
    /// It is signed in.
    LoggedIn(Box<LoggedIn>),
}

/// What is wrapped of a device.
#[derive(Serialize, Deserialize)]
struct About {
    client_name: String,
    address: String,
}

fn letters() -> String {
    let mut code = String::new();
    while code.len() < TYPED_LETTERS {
        let mut byte = [0];
        // The operating system gives random bytes, or nothing here works.
        SystemRandom::new().fill(&mut byte).expect("random bytes");
        // Every letter as likely as every other.
        if byte[0] < 240 {
            code.push(char::from(LETTERS[usize::from(byte[0] % 20)]));
        }
    }
    code
}

/// The one form of a code, however it is typed; `None`: it cannot be one.
fn typed(text: &str) -> Option<String> {
    let code: String = text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect();
    let rest = text.chars().filter(|c| !c.is_ascii_alphabetic()).all(|c| c == '-' || c.is_whitespace());
    (rest && code.len() == TYPED_LETTERS && code.bytes().all(|byte| LETTERS.contains(&byte))).then_some(code)
}

impl Accounts {
    /// Begins with a device.
    ///
    /// # Errors
    /// 429, 503.
    pub async fn begin_device(&self, client_name: &str, from: &Origin) -> Result<Asking, Problem> {
        self.count_from("device", from).await?;
        let about = About { client_name: client_name.to_owned(), address: from.address.to_string() };
        let about = serde_json::to_vec(&about).unwrap_or_default();
        let device_code = crate::crypto::secret("adc_");
        for _ in 0..3 {
            let code = letters();
            let new = NewDevice {
                device: self.digests.code.digest(device_code.as_bytes()),
                user_code: self.user_code(&code),
                about: self.master.wrap_secret(DEVICE, &about),
                lifetime_seconds: f64::from(LIFETIME_SECONDS),
                interval_seconds: INTERVAL_SECONDS,
            };
            if self.devices.ask(&new).await? {
                let (first, second) = code.split_at(TYPED_LETTERS / 2);
                let user_code = format!("{first}-{second}");
                return Ok(Asking { device_code, user_code, expires_in: LIFETIME_SECONDS, interval: INTERVAL_SECONDS });
            }
        }
        Err(Problem::busy("Too many devices are signing in right now.", 5_000))
    }

    /// What waits under a code that somebody has typed.
    ///
    /// # Errors
    /// 422 `invalid_code`, 429, 503.
    pub async fn waiting_device(&self, person: &str, code: &str, from: &Origin) -> Result<Waiting, Problem> {
        self.count_try("device", person, from).await?;
        let code = typed(code).ok_or_else(invalid_code)?;
        let (about, asked_at) = self.devices.show(&self.user_code(&code)).await?.ok_or_else(invalid_code)?;
        let about = self.master.unwrap_secret(DEVICE, &about);
        let about: Option<About> = about.and_then(|about| serde_json::from_slice(&about).ok());
        let About { client_name, address } = about.ok_or_else(invalid_code)?;
        self.forgive("device", person, from).await?;
        Ok(Waiting { client_name, address, asked_at })
    }

    /// Decides about what waits under a code: with a session like one's own, or with none. A session that was left open is not
    /// enough to let something in that stays.
    ///
    /// # Errors
    /// 403 as [`Proof`] is not enough, 422 `invalid_code`, 429, 503.
    pub async fn decide_device(&self, code: &str, session: Deciding<'_>, from: &Origin) -> Result<(), Problem> {
        let Deciding { person, amr, auth_time, password, tenant, approved } = session;
        if approved {
            self.prove(person, Proof { auth_time, password }, Enough::Fresh, from).await?;
        }
        self.count_try("device", person, from).await?;
        let code = typed(code).ok_or_else(invalid_code)?;
        self.credentials.enrol(person, None).await?;
        let others = amr.iter().filter(|method| *method != DEVICE).cloned();
        let approval = Approval {
            person: person.to_owned(),
            session: clock::fresh_id("ses_"),
            // As strong as the session in which it was approved, and no stronger or younger.
            amr: std::iter::once(DEVICE.to_owned()).chain(others).collect(),
            auth_time,
            tenant,
            password_number: self.credentials.of(person).await?.map_or(0, |row| row.password_number),
        };
        if !self.devices.decide(&self.user_code(&code), approved, &approval).await? {
            return Err(invalid_code());
        }
        self.forgive("device", person, from).await
    }

    /// A device asks whether it is signed in.
    ///
    /// # Errors
    /// 503; then the same may be asked again.
    pub async fn ask_device(&self, device_code: &str, from: &Origin) -> Result<Asked, Problem> {
        let digest = self.digests.code.digest(device_code.as_bytes());
        let approval = match self.devices.poll(&digest).await? {
            Polled::Unknown => return Ok(Asked::Unknown),
            Polled::Expired => return Ok(Asked::Expired),
            Polled::Denied => return Ok(Asked::Denied),
            Polled::Pending { hasty: true } => return Ok(Asked::SlowDown),
            Polled::Pending { hasty: false } => return Ok(Asked::Pending),
            Polled::Approved(approval) => approval,
        };
        let Approval { person, session, amr, auth_time, tenant, password_number } = approval;
        let tenant = self.still_member_of(&person, tenant.as_deref()).await?;
        let opening = Opening {
            person: person.clone(),
            session: Some(session.clone()),
            amr,
            auth_time,
            tenant,
            password_number: Some(password_number),
        };
        match self.open_session(opening, from).await {
            // Last: whoever has not heard the answer asks again, and gets the same one.
            Ok(logged_in) if self.devices.used(&digest).await? => Ok(Asked::LoggedIn(Box::new(logged_in))),
            // Taken back meanwhile, by whoever may have been too early to end this session with the others.
            Ok(_) => {
                self.end(&person, &session, "revoked").await?;
                Ok(Asked::Denied)
            }
            // The password was replaced since, or whoever approved was erased.
            Err(problem) if !problem.is_transient() => Ok(Asked::Denied),
            Err(problem) => Err(problem),
        }
    }
}

/// Who decides about a device, and how.
#[derive(Debug)]
pub struct Deciding<'a> {
    /// Who.
    pub person: &'a str,
    /// How they have shown who they are.
    pub amr: &'a [String],
    /// And when.
    pub auth_time: Timestamp,
    /// Their password, if that was a while ago.
    pub password: Option<Password>,
    /// Where they work.
    pub tenant: Option<String>,
    /// Whether the device may come in.
    pub approved: bool,
}

impl Inner {
    fn user_code(&self, code: &str) -> Vec<u8> {
        self.digests.code.digest(format!("device {code}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_same_however_it_is_typed() {
        for _ in 0..50 {
            let code = letters();
            assert_eq!(typed(&code).as_deref(), Some(code.as_str()));
            let (first, second) = code.split_at(4);
            assert_eq!(typed(&format!(" {}-{} ", first.to_lowercase(), second)), Some(code.clone()));
        }
        for wrong in ["", "BCDF", "BCDF-GHJKL", "BCDF-GHJA", "BCDF-GHJ1", "BCDF.GHJK", "BÇDF-GHJK", "BCDFGHJKL"] {
            assert_eq!(typed(wrong), None, "{wrong:?}");
        }
    }
}
