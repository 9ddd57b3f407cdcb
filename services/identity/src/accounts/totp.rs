//! Second factors.

use kernel::Problem;
use projections::identity::CredentialsRow;

use super::Inner;
use super::login::Credential;

impl Inner {
    /// Asks for the second factor: what is added to the ways in which somebody has shown who they are.
    pub(super) async fn second_factor(
        &self,
        _person: &str,
        _row: &CredentialsRow,
        _credential: &Credential,
    ) -> Result<Vec<String>, Problem> {
        Err(Problem::new(401, "second_factor_required", "Send the code of your authenticator as `totp`."))
    }
}
