//! The port to whoever takes mails from us.

use async_trait::async_trait;
use projections::mail::Claimed;

/// Takes mails and is from then on responsible for them.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Hands a mail over. It may be handed over again later, under the same Message-ID.
    ///
    /// # Errors
    /// [`Unsent`].
    async fn carry(&self, mail: &Claimed) -> Result<(), Unsent>;

    /// There is nothing to hand over for a while: what was kept open may be closed.
    async fn rest(&self) {}
}

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// No mail is taken now: nobody answers, or we are not let in. Others need not be tried.
    Away(String),
    /// This one is not taken now.
    Later(String),
    /// This one will never be taken.
    Never(String),
}

impl Unsent {
    /// What was said, without addresses: it is kept where everything about people is sealed.
    #[must_use]
    pub fn reason(&self) -> String {
        let (Self::Away(said) | Self::Later(said) | Self::Never(said)) = self;
        let hidden = said.split_whitespace().map(|word| if word.contains('@') { "***" } else { word });
        let mut reason = hidden.collect::<Vec<_>>().join(" ");
        let end = (0..=MOST_BYTES.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or_default());
        reason
    }
}

/// Servers can be talkative.
const MOST_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_no_address_and_has_an_end() {
        let said = "permanent error (550): 5.1.1 <Ann@example.org>: no such\r\n user, rcpt=ann@example.org";
        assert_eq!(Unsent::Never(said.into()).reason(), "permanent error (550): 5.1.1 *** no such user, ***");
        let long = Unsent::Later("ü".repeat(1_000)).reason();
        assert_eq!(long.len(), 300);
    }
}
