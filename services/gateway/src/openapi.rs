//! What all routes have in common in the description: the token, and problem documents as answers.

use rest::documents;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use crate::guard::{Needs, SCHEME, asked};

const PROBLEM: &str = "application/problem+json";

/// Completes the description.
pub(crate) fn complete(description: &mut OpenApi) {
    let components = description.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    for item in description.paths.paths.values_mut() {
        for operation in operations(item) {
            let open = asked(operation) == Needs::Nothing;
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    say_problem(response);
                }
            }
            let closed = (!open).then_some(("401", "no token, or a wrong one"));
            for (status, about) in closed.into_iter().chain([("default", "refused, or not possible now")]) {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(about)));
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
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
