//! Which scope each route needs. The description says it, and what the description says is what is enforced: a route that
//! names no scope is open to nobody.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use kernel::Problem;
use rest::{Access, Fault};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};

use crate::limits::Class;
use crate::pass::Pass;

/// The name of the one way to show who one is.
pub(crate) const SCHEME: &str = "token";

/// What a route asks of its callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: `security(())`.
    Nothing,
    /// A scope: `security(("token" = ["runs:read"]))`.
    Scope(String),
    /// It does not say.
    Unsaid,
}

/// Every route with what it asks for.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Inner>);

struct Inner {
    access: Arc<dyn Access>,
    rules: HashMap<String, Vec<(Method, Rule)>>,
}

/// What is known about a route before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) needs: Needs,
    /// Whose budget it counts against; `None` for probes, which depend on nothing else.
    pub(crate) class: Option<Class>,
}

impl Rule {
    fn of(path: &str, method: &Method, needs: Needs) -> Self {
        let safe = *method == Method::GET;
        let class = match &needs {
            Needs::Nothing if safe && PROBES.contains(&path) => None,
            // Whoever has no token yet and changes something shows who they are, or is made known.
            Needs::Nothing if !safe => Some(Class::Auth),
            _ if path.starts_with("/v1/auth/") => Some(Class::Auth),
            _ if safe => Some(Class::Read),
            _ => Some(Class::Write),
        };
        Self { needs, class }
    }
}

/// Asked by whoever watches over the process, however often that is.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

impl Guard {
    /// Out of the description. `plain` are routes that it does not contain.
    pub(crate) fn new(access: Arc<dyn Access>, description: &OpenApi, plain: &[(&str, Needs)]) -> Self {
        let mut rules: HashMap<String, Vec<(Method, Rule)>> = HashMap::new();
        let mut add = |path: &str, method: Method, needs| {
            let rule = Rule::of(path, &method, needs);
            rules.entry(path.to_owned()).or_default().push((method, rule));
        };
        for (path, item) in &description.paths.paths {
            for (method, operation) in operations(item) {
                add(path, method, asked(operation));
            }
        }
        for (path, asked) in plain {
            add(path, Method::GET, asked.clone());
        }
        Self(Arc::new(Inner { access, rules }))
    }

    /// What is known about a request's route; `None` when there is no such route, or not with this method.
    pub(crate) fn rule(&self, request: &Request) -> Option<&Rule> {
        let path = request.extensions().get::<MatchedPath>()?;
        // Whoever may read may ask for the headers only.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let methods = self.0.rules.get(path.as_str())?;
        methods.iter().find(|(known, _)| known == method).map(|(_, rule)| rule)
    }
}

/// The operations of a path.
pub(crate) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// What an operation asks for.
pub(crate) fn asked(operation: &Operation) -> Needs {
    let requirements = serde_json::to_value(&operation.security).unwrap_or_default();
    let Some(alternatives) = requirements.as_array() else { return Needs::Unsaid };
    let scopes = |one: &serde_json::Value| Some(one.get(SCHEME)?.as_array()?.first()?.as_str()?.to_owned());
    match alternatives.as_slice() {
        [] => Needs::Nothing,
        [one] if one.as_object().is_some_and(serde_json::Map::is_empty) => Needs::Nothing,
        [one] => scopes(one).map_or(Needs::Unsaid, Needs::Scope),
        _ => Needs::Unsaid,
    }
}

/// The layer: who asks is put into the request, and let through only with the scope that the route names.
pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Result<Response, Fault> {
    let needs = guard.rule(&request).map(|rule| rule.needs.clone());
    if needs == Some(Needs::Nothing) {
        return Ok(next.run(request).await);
    }
    // Also for a route that does not exist: who may not come in learns nothing about what is inside.
    let token = token(request.headers())?;
    let signed = guard.0.access.bearer(token).await?;
    let pass = match needs {
        Some(Needs::Scope(scope)) => {
            signed.check(&scope)?;
            Some(Pass::new(Arc::clone(&guard.0.access), token, scope))
        }
        Some(Needs::Unsaid) => {
            tracing::error!(path = request.uri().path(), "a route names no scope, so nobody may use it");
            return Err(Problem::new(403, "closed", "Nobody may use this route.").into());
        }
        // No such route, or not with this method: the router says so.
        Some(Needs::Nothing) | None => None,
    };
    request.extensions_mut().insert(signed);
    if let Some(pass) = pass {
        request.extensions_mut().insert(pass);
    }
    Ok(next.run(request).await)
}

fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A proxy may have believed the other one.
    if values.next().is_some() {
        return Err(Problem::malformed("There are two `Authorization` headers; send one."));
    }
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        let detail = "Send `Authorization: Bearer <token>`: an access token (`airstream login`) or an API key.";
        return Err(Problem::new(401, "unauthenticated", detail));
    }
    Ok(token.trim())
}
