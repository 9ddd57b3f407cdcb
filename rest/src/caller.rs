//! Who calls, and what they may do. The gateway puts it into the request; a route that asks for it cannot be reached without.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::{PrincipalId, Problem, TenantId, Timestamp};
use tokio::sync::broadcast;

use crate::Fault;

/// What may be done within a tenant; each level includes the ones before it. The last word of a scope names one:
/// `runs:write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Looks.
    Read,
    /// Changes what the tenant works with.
    Write,
    /// Changes who may work with it.
    Admin,
    /// Changes the tenant itself.
    Own,
}

impl Level {
    /// Its name in a scope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Own => "own",
        }
    }

    /// By its name in a scope.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "admin" => Some(Self::Admin),
            "own" => Some(Self::Own),
            _ => None,
        }
    }
}

/// What kind of caller it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A person who signed in.
    Person {
        /// In which session.
        session: String,
        /// When they last showed who they are.
        auth_time: Timestamp,
        /// By what (RFC 8176).
        amr: Vec<String>,
    },
    /// A program with a key.
    Program,
    /// Whoever runs a development stack.
    Development,
}

/// An authenticated caller, whether or not it has chosen a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Who.
    pub principal: PrincipalId,
    /// What kind.
    pub holder: Holder,
    /// The tenant that is worked in.
    pub tenant: Option<TenantId>,
    /// What may be done there. `None` without a tenant.
    pub level: Option<Level>,
    /// Scopes that narrow it further; `None`: everything that the level allows.
    pub scopes: Option<BTreeSet<String>>,
    /// Whether the caller runs the platform: what concerns all tenants is for operators only.
    pub operator: bool,
    /// When this ends.
    pub expires_at: Option<Timestamp>,
}

/// A scope that everybody who signed in has.
pub const ANYBODY: &str = "anybody";
/// A scope that people have, programs have not: what concerns themselves.
pub const ME: &str = "me";
/// A scope that operators of the platform have.
pub const OPERATE: &str = "operate";

impl Signed {
    /// Lets pass who has a scope: [`ANYBODY`], [`ME`], [`OPERATE`], or one within the tenant, `<resource>:<level>`.
    ///
    /// # Errors
    /// 403, with a code that tells what is missing.
    pub fn check(&self, scope: &str) -> Result<(), Problem> {
        let refused = |code, detail: String| Err(Problem::new(403, code, detail));
        match scope {
            ANYBODY => return Ok(()),
            ME => {
                return match self.holder {
                    Holder::Person { .. } => Ok(()),
                    _ => refused("people_only", "This is about a person; sign in as one.".to_owned()),
                };
            }
            OPERATE => {
                return match self.operator {
                    true => Ok(()),
                    false => refused("not_an_operator", "This concerns all tenants; ask an operator.".to_owned()),
                };
            }
            _ => {}
        }
        let Some((tenant, level)) = self.tenant.as_ref().zip(self.level) else {
            let detail = "Choose a tenant first: `POST /v1/auth/tenant` gives a token for one of yours.";
            return refused("no_tenant", detail.to_owned());
        };
        let needed = scope.rsplit_once(':').and_then(|(_, name)| Level::of(name)).unwrap_or(Level::Own);
        if level < needed {
            return refused("role_too_low", format!("Your role in `{tenant}` does not include `{scope}`."));
        }
        if self.scopes.as_ref().is_some_and(|held| !held.iter().any(|held| covers(held, scope))) {
            return refused("insufficient_scope", format!("This key does not have the scope `{scope}`."));
        }
        Ok(())
    }

    /// The caller within its tenant.
    ///
    /// # Errors
    /// 403 `no_tenant`.
    pub fn caller(&self) -> Result<Caller, Problem> {
        let tenant = self.tenant.clone().ok_or_else(|| {
            Problem::new(
                403,
                "no_tenant",
                "Choose a tenant first: `POST /v1/auth/tenant` gives a token for one of yours.",
            )
        })?;
        Ok(Caller { tenant, principal: self.principal.clone(), operator: self.operator })
    }
}

/// Whether a scope that is held includes one that is wanted: the same resource or `*`, and at least the same level.
#[must_use]
pub fn covers(held: &str, wanted: &str) -> bool {
    let parts = |scope: &str| {
        let (resource, level) = scope.rsplit_once(':')?;
        Some((resource.to_owned(), Level::of(level)?))
    };
    match (parts(held), parts(wanted)) {
        (Some((held, has)), Some((wanted, needs))) => (held == "*" || held == wanted) && has >= needs,
        _ => false,
    }
}

/// An authenticated caller within its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data the request is about.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// Whether the caller runs the platform.
    pub operator: bool,
}

fn signed(parts: &Parts) -> Result<&Arc<Signed>, Fault> {
    // Reaching this without a caller means that a route was mounted outside the gateway's authentication.
    let signed = parts.extensions.get::<Arc<Signed>>();
    signed.ok_or_else(|| Problem::new(401, "unauthenticated", "Send `Authorization: Bearer <token>`.").into())
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        Ok(signed(parts)?.caller()?)
    }
}

/// [`Signed`], as a route asks for it.
#[derive(Debug, Clone)]
pub struct SignedIn(pub Arc<Signed>);

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        Ok(Self(Arc::clone(signed(parts)?)))
    }
}

/// Establishes callers.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Who holds a bearer token, and what they may do now.
    ///
    /// # Errors
    /// 401 `unauthenticated`; 503 when it cannot be told now.
    async fn bearer(&self, token: &str) -> Result<Arc<Signed>, Problem>;

    /// Whether a tenant exists: the bus names one in the subject.
    ///
    /// # Errors
    /// 503 when it cannot be told now: that is no "no".
    async fn knows(&self, tenant: &TenantId) -> Result<bool, Problem>;

    /// Tells of callers who may do less than before: whoever lets them stay connected asks again. Who lags behind asks again
    /// for everybody.
    fn lessened(&self) -> broadcast::Receiver<PrincipalId>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(level: Option<Level>, scopes: Option<&[&str]>) -> Signed {
        Signed {
            principal: "key_1".parse().expect("a principal"),
            holder: Holder::Program,
            tenant: level.map(|_| "acme".parse().expect("a tenant")),
            level,
            scopes: scopes.map(|scopes| scopes.iter().map(|scope| (*scope).to_owned()).collect()),
            operator: false,
            expires_at: None,
        }
    }

    fn code(checked: Result<(), Problem>) -> String {
        checked.expect_err("a refusal").code.to_string()
    }

    #[test]
    fn a_level_includes_the_ones_before_it() {
        let member = signed(Some(Level::Write), None);
        assert!(member.check("runs:read").is_ok() && member.check("runs:write").is_ok());
        assert_eq!(code(member.check("keys:admin")), "role_too_low");
        assert_eq!(code(member.check("tenant:own")), "role_too_low");
        assert_eq!(code(member.check("nonsense")), "role_too_low", "what nobody understands is for nobody");
        assert_eq!(code(signed(None, None).check("runs:read")), "no_tenant");
    }

    #[test]
    fn scopes_narrow_and_never_widen() {
        let key = signed(Some(Level::Write), Some(&["runs:write", "*:read", "keys:admin"]));
        assert!(key.check("runs:write").is_ok() && key.check("runs:read").is_ok() && key.check("events:read").is_ok());
        assert_eq!(code(key.check("events:write")), "insufficient_scope");
        assert_eq!(code(key.check("keys:admin")), "role_too_low", "its owner is no admin any more");
        assert!(signed(Some(Level::Own), Some(&[])).check("runs:read").is_err());
    }

    #[test]
    fn what_concerns_people_or_the_platform_is_not_for_keys() {
        let key = signed(Some(Level::Own), None);
        assert_eq!(code(key.check(ME)), "people_only");
        assert_eq!(code(key.check(OPERATE)), "not_an_operator");
        assert!(key.check(ANYBODY).is_ok());
    }
}
