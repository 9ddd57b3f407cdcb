//! Second factors: codes of an authenticator, and recovery codes for the day on which it is lost.

use kernel::Problem;
use projections::identity::CredentialsRow;
use rest::Origin;
use runtime::clock;
use serde_json::json;

use super::login::Credential;
use super::proof::{Enough, Proof};
use super::{Accounts, Inner};
use crate::otp::{self, Secret};

/// What is sealed is sealed as this.
const FIELD: &str = "totp";

/// An authenticator that is being set up.
#[derive(Debug)]
pub struct Setup {
    /// The secret as people type it.
    pub secret: String,
    /// The same as an authenticator reads it from a picture.
    pub uri: String,
}

/// The one answer to a code of a second factor that does not work, whatever the reason.
fn wrong_code(status: u16) -> Problem {
    let detail = "The code is wrong, was used already, or is too old; wait for the next one.";
    Problem::new(status, "invalid_second_factor", detail)
}

fn not_set_up() -> Problem {
    Problem::new(409, "totp_not_set_up", "There is no authenticator: `POST /v1/auth/totp/setup` begins with one.")
}

fn enabled_already() -> Problem {
    Problem::new(409, "totp_enabled", "An authenticator is in use already: disable it first.")
}

impl Accounts {
    /// Begins with an authenticator. Nothing is asked for until [`Accounts::enable_totp`]. A session that was left open is not
    /// enough: whoever sets one up keeps everybody out who has no code of it, also its owner.
    ///
    /// # Errors
    /// 403 as [`Proof`] is not enough, 409 `totp_enabled`, 429, 503.
    pub async fn set_up_totp(&self, person: &str, proof: Proof, from: &Origin) -> Result<Setup, Problem> {
        self.prove(person, proof, Enough::Password, from).await?;
        let found = self.existing(person).await?;
        let secret = Secret::generate();
        let sealed = self.seal(person, FIELD, &secret.to_text()).await?;
        self.credentials.enrol(person, None).await?;
        if !self.credentials.prepare_totp(person, &sealed).await? {
            return Err(enabled_already());
        }
        let account = self.open(&found.email, "email").await?.unwrap_or_default();
        Ok(Setup { secret: secret.base32(), uri: secret.uri(&account) })
    }

    /// Asks for the authenticator from now on, once it has shown a code: returns the recovery codes.
    ///
    /// # Errors
    /// 409 `totp_not_set_up` or `totp_enabled`, 422 `invalid_second_factor`, 429, 503. After a 503 it may be tried again, with
    /// the next code.
    pub async fn enable_totp(&self, person: &str, code: &str, from: &Origin) -> Result<Vec<String>, Problem> {
        let row = self.credentials.of(person).await?.filter(|row| row.totp_secret.is_some()).ok_or_else(not_set_up)?;
        // Enabled and not written down: somebody was interrupted, and goes on here.
        if row.totp_enabled && self.existing(person).await?.totp {
            return Err(enabled_already());
        }
        self.count_factor(person, from).await?;
        if !self.accept(person, &row, code, true).await? {
            return Err(wrong_code(422));
        }
        let codes = self.renew(person).await?;
        self.record(person, "enable-totp", &json!({}), &clock::fresh_id("cmd_")).await?;
        self.forgive_factor(person).await?;
        let text = "From now on a code of your authenticator is asked for when you log in.\n\n\
                    If it was not you: ask for a new password at once, and write to the operator of this server.\n";
        self.notify(person, &clock::fresh_id("totp."), "Two-factor authentication is on", text).await?;
        Ok(codes)
    }

    /// Asks for no second factor from now on. A recovery code is as good as a code of the authenticator, which may be lost.
    ///
    /// # Errors
    /// 403 as [`Proof`] is not enough, 409 `totp_not_set_up`, 422 `invalid_second_factor`, 429, 503. After a 503 it may be tried
    /// again, with the next code.
    pub async fn disable_totp(&self, person: &str, proof: Proof, code: &str, from: &Origin) -> Result<(), Problem> {
        self.prove(person, proof, Enough::Password, from).await?;
        let row = self.credentials.of(person).await?.filter(|row| row.totp_enabled).ok_or_else(not_set_up)?;
        self.count_factor(person, from).await?;
        if !self.accept(person, &row, code, false).await? && !self.recover(person, code).await? {
            return Err(wrong_code(422));
        }
        // The row decides what is asked for: it goes last, so that whoever is interrupted can show another code.
        self.record(person, "disable-totp", &json!({}), &clock::fresh_id("cmd_")).await?;
        self.credentials.renew_codes(person, &[]).await?;
        self.credentials.disable_totp(person).await?;
        self.forgive_factor(person).await?;
        let text = "From now on only your password is asked for when you log in.\n\n\
                    If it was not you: ask for a new password at once, and turn it on again.\n";
        self.notify(person, &clock::fresh_id("totp."), "Two-factor authentication is off", text).await
    }

    /// Gives out other recovery codes; those of before are worth nothing.
    ///
    /// # Errors
    /// 409 `totp_not_set_up`, 422 `invalid_second_factor`, 429, 503.
    pub async fn renew_recovery_codes(&self, person: &str, code: &str, from: &Origin) -> Result<Vec<String>, Problem> {
        let row = self.credentials.of(person).await?.filter(|row| row.totp_enabled).ok_or_else(not_set_up)?;
        self.count_factor(person, from).await?;
        if !self.accept(person, &row, code, false).await? {
            return Err(wrong_code(422));
        }
        self.forgive_factor(person).await?;
        let codes = self.renew(person).await?;
        let text = "Your recovery codes were replaced; those of before do not work any more.\n\n\
                    If it was not you: ask for a new password at once.\n";
        self.notify(person, &clock::fresh_id("codes."), "You have new recovery codes", text).await?;
        Ok(codes)
    }
}

impl Inner {
    /// Asks for the second factor: what is added to the ways in which somebody has shown who they are.
    pub(super) async fn second_factor(
        &self,
        person: &str,
        row: &CredentialsRow,
        credential: &Credential,
        from: &Origin,
    ) -> Result<Vec<String>, Problem> {
        let (method, right) = match (&credential.totp, &credential.recovery) {
            (Some(code), _) => {
                self.count_factor(person, from).await?;
                ("otp", self.accept(person, row, code, false).await?)
            }
            // 50 bits are not guessed at the pace of logins.
            (None, Some(code)) => ("recovery", self.recover(person, code).await?),
            (None, None) => {
                let detail = "Send the code of your authenticator as `totp`, or a recovery code as `recovery_code`.";
                return Err(Problem::new(401, "second_factor_required", detail));
            }
        };
        if !right {
            return Err(wrong_code(401));
        }
        self.forgive_factor(person).await?;
        if method == "recovery" {
            let left = row.recovery_left.saturating_sub(1);
            let text = format!(
                "Somebody logged in with one of your recovery codes; {left} are left.\n\n\
                 If it was not you: ask for a new password at once, and renew your recovery codes.\n"
            );
            self.notify(person, &clock::fresh_id("recovery."), "A recovery code was used", &text).await?;
        }
        Ok(vec![method.to_owned(), "mfa".to_owned()])
    }

    /// Accepts a code of the authenticator, once.
    async fn accept(&self, person: &str, row: &CredentialsRow, code: &str, enable: bool) -> Result<bool, Problem> {
        let Some(sealed) = &row.totp_secret else { return Ok(false) };
        let secret = self.open(sealed, FIELD).await?.and_then(|text| Secret::from_text(&text));
        match secret.and_then(|secret| secret.step_of(code, clock::now())) {
            Some(step) => Ok(self.credentials.accept_totp(person, sealed, step, enable).await?),
            None => Ok(false),
        }
    }

    /// Accepts a recovery code, once.
    async fn recover(&self, person: &str, code: &str) -> Result<bool, Problem> {
        match otp::recovery_code(code) {
            Some(code) => Ok(self.credentials.use_code(person, &self.recovery(person, &code)).await?),
            None => Ok(false),
        }
    }

    async fn renew(&self, person: &str) -> Result<Vec<String>, Problem> {
        let codes = otp::recovery_codes();
        let digests: Vec<Vec<u8>> =
            codes.iter().filter_map(|code| otp::recovery_code(code)).map(|code| self.recovery(person, &code)).collect();
        let number = self.credentials.renew_codes(person, &digests).await?.ok_or_else(not_set_up)?;
        let renewed = events::person::RecoveryCodesRenewed { number };
        self.record(person, "renew-recovery-codes", &renewed, &format!("{person}.recovery-codes.{number}")).await?;
        Ok(codes)
    }

    fn recovery(&self, person: &str, code: &str) -> Vec<u8> {
        self.digests.code.digest(format!("recovery {person} {code}").as_bytes())
    }
}
