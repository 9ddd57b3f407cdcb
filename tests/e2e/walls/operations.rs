//! Every operation that asks who somebody is, as a request about real things of one tenant. `walls.rs` compares this list with
//! the description of the API: a new route has to be put here.

/// What comes of a request by the owner of another tenant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Foreign {
    /// 403 or 404 with this code.
    Refused(&'static str),
    /// It is about whoever asks, their account or their own tenant, and they get what its owner gets.
    Own,
}
use Foreign::{Own, Refused};

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// As the description has it.
    pub(super) path: &'static str,
    /// Where it is really sent to; `$name` stands for a thing of the first tenant.
    pub(super) real: &'static str,
    /// With which body.
    pub(super) body: &'static str,
    pub(super) foreign: Foreign,
    /// What its own tenant's owner gets, at the end and in the order of this list; 403: it needs an operator, or somebody else.
    pub(super) status: u16,
}

const fn of(
    (method, path): (&'static str, &'static str),
    real: &'static str,
    body: &'static str,
    foreign: Foreign,
    status: u16,
) -> Operation {
    Operation { method, path, real, body, foreign, status }
}

/// An operation whose path names nothing.
const fn at(method: &'static str, path: &'static str, body: &'static str, foreign: Foreign, status: u16) -> Operation {
    of((method, path), path, body, foreign, status)
}

const ELSEWHERE: Foreign = Refused("another_tenant");
const OPERATORS: Foreign = Refused("not_an_operator");
const TENANT: &str = "/v1/tenants/{tenant}";
const MEMBER: &str = "/v1/tenants/{tenant}/members/{person}";
const INVITES: &str = "/v1/tenants/{tenant}/invites";

#[rustfmt::skip]
pub(super) const ALL: &[Operation] = &[
    at("GET", "/v1/whoami", "", Own, 200),
    at("GET", "/v1/catalogue", "", Own, 200),
    at("GET", "/v1/me", "", Own, 200),
    at("PATCH", "/v1/me", r#"{"locale":"en"}"#, Own, 200),
    at("GET", "/v1/me/sessions", "", Own, 200),
    of(("DELETE", "/v1/me/sessions/{id}"), "/v1/me/sessions/$session", "", Refused("not_found"), 204),
    at("GET", "/v1/me/audit", "", Own, 200),
    at("POST", "/v1/me/export", "", Own, 202),
    of(("GET", "/v1/me/exports/{id}"), "/v1/me/exports/$export", "", Refused("not_found"), 200),
    of(("GET", "/v1/me/exports/{id}/download"), "/v1/me/exports/$export/download", "", Refused("not_found"), 200),
    at("GET", "/v1/audit", "", Own, 200),
    at("GET", "/v1/audit/verify", "", Own, 200),
    // No provider is configured.
    of(("POST", "/v1/me/links/{provider}"), "/v1/me/links/google", "{}", Refused("unknown_provider"), 404),
    of(("DELETE", "/v1/me/links/{provider}"), "/v1/me/links/google", "", Refused("not_linked"), 404),
    at("POST", "/v1/auth/tenant", r#"{"tenant":"$tenant"}"#, Refused("not_a_member"), 200),
    at("POST", "/v1/me/email", r#"{"email":"elsewhere@example.org","password":"$password"}"#, Own, 202),
    // Whoever knows a device's code may let it in, as themselves; nobody has this one.
    of(("GET", "/v1/auth/device/{user_code}"), "/v1/auth/device/$device", "", Own, 200),
    at("POST", "/v1/auth/device/approve", r#"{"user_code":"BCDF-GHJK"}"#, Own, 422),
    at("POST", "/v1/auth/device/deny", r#"{"user_code":"BCDF-GHJK"}"#, Own, 422),
    at("POST", "/v1/auth/totp/setup", r#"{"password":"$password"}"#, Own, 200),
    at("POST", "/v1/auth/totp/enable", r#"{"code":"000000"}"#, Own, 422),
    at("POST", "/v1/auth/totp/disable", r#"{"code":"000000","password":"$password"}"#, Own, 409),
    at("POST", "/v1/auth/totp/recovery-codes", r#"{"code":"000000"}"#, Own, 409),
    at("POST", "/v1/me/password", r#"{"current":"$password","new":"staple my caravan twice"}"#, Own, 204),

    at("GET", "/v1/instances", "", OPERATORS, 403),
    at("GET", "/v1/projections", "", OPERATORS, 403),
    of(("POST", "/v1/projections/{name}/rebuild"), "/v1/projections/tenants/rebuild", "", OPERATORS, 403),
    of(("POST", "/v1/projections/{name}/rollback"), "/v1/projections/tenants/rollback", "", OPERATORS, 403),
    of(("POST", "/v1/projections/{name}/verify"), "/v1/projections/tenants/verify", "", OPERATORS, 403),
    at("GET", "/v1/operate/signing-keys", "", OPERATORS, 403),
    at("POST", "/v1/operate/signing-keys/rotate", "", OPERATORS, 403),
    at("GET", "/v1/parked", "", Own, 200),
    at("POST", "/v1/parked/retry", r#"{"id":"$parked"}"#, Refused("not_found"), 202),
    at("POST", "/v1/parked/skip", r#"{"id":"$parked","reason":"a test"}"#, Refused("not_found"), 202),

    at("GET", "/v1/events", "", Own, 200),
    of(("GET", "/v1/events/{id}"), "/v1/events/$event", "", Refused("not_found"), 200),
    at("GET", "/v1/commands", "", Own, 200),
    of(("GET", "/v1/commands/{id}"), "/v1/commands/$command", "", Refused("not_found"), 200),
    at("POST", "/v1/commands", r#"{"category":"run","id":"$run","command":"cancel"}"#, Refused("unknown_run"), 200),
    at("GET", "/v1/workflows", "", Own, 200),
    of(("GET", "/v1/workflows/{id}"), "/v1/workflows/$workflow", "", Refused("unknown_workflow"), 200),
    at("GET", "/v1/workflows/runs", "", Own, 200),
    of(("GET", "/v1/workflows/runs/{id}"), "/v1/workflows/runs/$run", "", Refused("unknown_run"), 200),
    of(("POST", "/v1/workflows/runs/{id}/cancel"), "/v1/workflows/runs/$run/cancel", "{}", Refused("unknown_run"), 200),
    of(("POST", "/v1/workflows/{id}/runs"), "/v1/workflows/$workflow/runs", "{}", Refused("unknown_workflow"), 201),
    of(("POST", "/v1/workflows/{id}/retire"), "/v1/workflows/$workflow/retire", "{}", Refused("unknown_workflow"), 200),
    // The same name in another tenant is another workflow.
    of(("PUT", "/v1/workflows/{id}"), "/v1/workflows/$workflow", r#"{"steps":[{"id":1,"name":"other"}]}"#, Own, 200),

    at("GET", "/v1/tenants", "", Own, 200),
    at("POST", "/v1/tenants", r#"{"name":"Another"}"#, Own, 201),
    of(("GET", TENANT), "/v1/tenants/$tenant", "", ELSEWHERE, 200),
    of(("PATCH", TENANT), "/v1/tenants/$tenant", r#"{"name":"Renamed"}"#, ELSEWHERE, 200),
    of(("GET", "/v1/tenants/{tenant}/members"), "/v1/tenants/$tenant/members", "", ELSEWHERE, 200),
    of(("PATCH", MEMBER), "/v1/tenants/$tenant/members/$person", r#"{"role":"viewer"}"#, ELSEWHERE, 200),
    of(("DELETE", MEMBER), "/v1/tenants/$tenant/members/$person", "", ELSEWHERE, 200),
    of(("GET", INVITES), "/v1/tenants/$tenant/invites", "", ELSEWHERE, 200),
    of(("POST", INVITES), "/v1/tenants/$tenant/invites", r#"{"email":"new@example.org","role":"viewer"}"#, ELSEWHERE, 201),
    at("POST", "/v1/invites/accept", r#"{"code":"$code"}"#, Refused("another_address"), 403),
    at("POST", "/v1/invites/decline", r#"{"code":"$code"}"#, Refused("another_address"), 403),
    of(("DELETE", "/v1/tenants/{tenant}/invites/{invite}"), "/v1/tenants/$tenant/invites/$invite", "", ELSEWHERE, 200),
    of(("POST", "/v1/tenants/{tenant}/leave"), "/v1/tenants/$tenant/leave", "{}", Refused("not_a_member"), 409),

    at("GET", "/v1/api-keys", "", Own, 200),
    at("POST", "/v1/api-keys", r#"{"name":"another","scopes":["runs:read"]}"#, Own, 201),
    of(("GET", "/v1/api-keys/{id}"), "/v1/api-keys/$key", "", Refused("unknown_key"), 200),
    of(("POST", "/v1/api-keys/{id}/rotate"), "/v1/api-keys/$key/rotate", "{}", Refused("unknown_key"), 200),
    of(("DELETE", "/v1/api-keys/{id}"), "/v1/api-keys/$key", "", Refused("unknown_key"), 200),

    at("POST", "/v1/me/erase", r#"{"confirm":"erase olga@example.org"}"#, Refused("not_confirmed"), 409),
    at("DELETE", "/v1/me/sessions", "", Own, 200),
];
