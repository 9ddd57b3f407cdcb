//! One way there and back: what ties the return to the departure.
//!
//! The state is random and travels through the browser. All else follows from it under a key of ours, so that nothing that is
//! kept about a round lets its reader finish it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use vault::Digester;

/// What is sent along, and asked for on return.
#[derive(Clone)]
pub(crate) struct Round {
    /// Comes back as it is, once.
    pub(crate) state: String,
    /// Stands in the ID token.
    pub(crate) nonce: String,
    /// Only we know it until the code is exchanged (RFC 7636).
    pub(crate) verifier: String,
    /// Only the browser that left has it.
    pub(crate) browser: String,
}

impl Round {
    /// A new one.
    pub(crate) fn begin(digester: &Digester) -> Self {
        Self::of(&crate::crypto::secret(""), digester)
    }

    /// The one of this state.
    pub(crate) fn of(state: &str, digester: &Digester) -> Self {
        let derived = |what: &str| URL_SAFE_NO_PAD.encode(digester.digest(format!("oauth {what} {state}").as_bytes()));
        Self {
            state: state.to_owned(),
            nonce: derived("nonce"),
            verifier: derived("verifier"),
            browser: derived("browser"),
        }
    }

    /// What is told of the verifier beforehand: `S256`.
    pub(crate) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use vault::MasterKey;

    use super::*;

    fn digester() -> Digester {
        MasterKey::parse(&MasterKey::generate()).expect("a key").digester("code")
    }

    #[test]
    fn a_round_is_found_again_by_its_state_and_by_our_key_only() {
        let (ours, other) = (digester(), digester());
        let begun = Round::begin(&ours);
        let again = Round::of(&begun.state, &ours);
        assert_eq!((&begun.nonce, &begun.verifier, &begun.browser), (&again.nonce, &again.verifier, &again.browser));
        let foreign = Round::of(&begun.state, &other);
        let next = Round::begin(&ours);
        for different in [&foreign, &next] {
            assert_ne!(begun.verifier, different.verifier);
            assert_ne!(begun.nonce, different.nonce);
            assert_ne!(begun.browser, different.browser);
        }
        assert_eq!(std::collections::BTreeSet::from([&begun.nonce, &begun.verifier, &begun.browser]).len(), 3);
        // RFC 7636, 4.1: 43 to 128 unreserved characters.
        assert_eq!(begun.verifier.len(), 43);
    }

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636, appendix B.
        let round =
            Round { verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(), ..Round::begin(&digester()) };
        assert_eq!(round.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
