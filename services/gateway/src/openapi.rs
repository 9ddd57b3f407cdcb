//! What all routes have in common in the description: the token, idempotency keys, and problem documents as answers.

mod examples;

use axum::http::Method;
use rest::documents;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, Server};

use crate::guard::{Needs, SCHEME, asked};

pub(crate) use examples::complete as with_examples;

const PROBLEM: &str = "application/problem+json";

/// What each group of operations is about.
const TAGS: [(&str, &str); 15] = [
    ("auth", "Becoming known, signing in, going on, signing out; how to believe our tokens."),
    ("me", "What concerns whoever asks: profile, sessions, export, erasure."),
    ("tenants", "Tenants, their members and the roles they have."),
    ("invites", "Inviting people into a tenant, and accepting."),
    ("api-keys", "Keys of programs."),
    ("audit", "Who has done what."),
    ("commands", "Sending commands, and what became of them."),
    ("events", "The tenant's part of the log, page by page or live."),
    ("workflows", "Definitions of workflows."),
    ("runs", "Runs of workflows."),
    ("operations", "Projections, consumers, what they have set aside, and the processes that share the work."),
    ("operate", "What whoever runs the platform may do: the keys that sign tokens."),
    ("health", "Whether the process lives, and whether it can serve."),
    ("development", "What only a development stack has."),
    ("docs", "This description."),
];

/// Completes the description.
pub(crate) fn complete(description: &mut OpenApi) {
    description.info.description = Some(include_str!("openapi/description.md").to_owned());
    description.servers = Some(vec![Server::new("/")]);
    let components = description.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    for (name, response) in answers() {
        components.responses.insert(name.to_owned(), RefOr::T(response));
    }
    let mut used = Vec::new();
    for (path, item) in &mut description.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            used.extend(operation.tags.clone().unwrap_or_default());
            one(path, &method, operation);
        }
    }
    let known = TAGS.iter().filter(|(name, _)| used.iter().any(|used| used == name));
    let tags = known.map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build());
    description.tags = Some(tags.collect());
}

fn one(path: &str, method: &Method, operation: &mut Operation) {
    operation.operation_id = Some(operation_id(path, method));
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            say_problem(response);
            if response.description.is_empty() {
                about(status).clone_into(&mut response.description);
            }
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            say_bounds(parameter);
        }
    }
    let mut answers = vec![("default", "Problem")];
    if asked(operation) != Needs::Nothing {
        answers.extend([("401", "Unauthenticated"), ("403", "Forbidden")]);
    }
    if !["/livez", "/readyz"].contains(&path) {
        answers.push(("429", "TooOften"));
    }
    if !method.is_safe() {
        answers.push(("422", "Invalid"));
        operation.parameters.get_or_insert_default().push(RefOr::T(idempotency_key()));
    }
    for (status, name) in answers {
        let reference = || RefOr::Ref(Ref::from_response_name(name));
        operation.responses.responses.entry(status.to_owned()).or_insert_with(reference);
    }
}

/// What parameters of one name have to be everywhere. See `rest::Segment`, `rest::PageQuery` and `kernel::Position`.
fn say_bounds(parameter: &mut Parameter) {
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    match (&parameter.parameter_in, parameter.name.as_str()) {
        (ParameterIn::Path, _) if schema.pattern.is_none() && schema.enum_values.is_none() => {
            (schema.min_length, schema.max_length) = (Some(1), Some(128));
            schema.pattern = Some("^[!-~]+$".to_owned());
        }
        (ParameterIn::Query, "limit") => (schema.minimum, schema.maximum) = (Some(1.into()), Some(500.into())),
        (ParameterIn::Query, "at_least") => schema.pattern = Some("^p1-[0-9a-f]{1,15}$".to_owned()),
        _ => {}
    }
}

/// What an answer means, where its route does not say it.
fn about(status: &str) -> &'static str {
    match status {
        "200" => "Found, or done.",
        "201" => "Made.",
        "202" => "Taken: it will be done.",
        "204" => "Done; there is nothing more to say.",
        "404" => "There is no such thing.",
        "409" => "It does not fit what is there now.",
        "422" => "Readable, but not meaningful.",
        "429" => "Asked too often.",
        status if status.starts_with('5') => "Not possible now.",
        _ => "Refused.",
    }
}

/// Unique, since method and path are: names of functions are not.
fn operation_id(path: &str, method: &Method) -> String {
    let words = path.split(['/', '{', '}', '.', '-']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<&str> = words.collect();
    format!("{}_{}", method.as_str().to_lowercase(), words.join("_"))
}

fn idempotency_key() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("A key of your choice: the same one again with the same request does nothing twice."))
        .schema(Some(text.build()))
        .example(Some("order-42".into()))
        .build()
}

fn answers() -> [(&'static str, Response); 5] {
    let retry = ObjectBuilder::new().schema_type(Type::Integer);
    let retry = HeaderBuilder::new().schema(Some(retry)).description(Some("When to ask again, in seconds.")).build();
    let mut too_often = problem("asked too often");
    too_often.headers.insert("Retry-After".to_owned(), RefOr::T(retry));
    [
        ("Unauthenticated", problem("no token, or one that is not valid")),
        ("Forbidden", problem("the token does not have the scope")),
        ("Invalid", problem("readable, but not meaningful; or a key that stands for another request")),
        ("TooOften", too_often),
        ("Problem", problem("refused, or not possible now")),
    ]
}

fn reference() -> Ref {
    Ref::from_schema_name(<documents::Problem as utoipa::ToSchema>::name())
}

fn problem(about: &str) -> Response {
    ResponseBuilder::new().description(about).content(PROBLEM, Content::new(Some(reference()))).build()
}

/// Problem documents have a media type of their own, which a route's own annotation does not know.
fn say_problem(response: &mut Response) {
    let is_problem = |content: &RefOr<Content>| match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(found)), .. }) => found.ref_location == reference().ref_location,
        _ => false,
    };
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.shift_remove("application/json")
    {
        response.content.insert(PROBLEM.to_owned(), content);
    }
}
