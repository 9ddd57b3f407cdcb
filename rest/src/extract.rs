//! Parts of requests, read with problems instead of plain-text rejections.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use kernel::{Position, Problem};
use serde::de::DeserializeOwned;

use crate::Fault;

/// A JSON body as bytes: commands check it themselves, with better words than a generic reader has.
pub struct Payload(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let json = kind.is_none_or(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            kind == "application/json" || kind.ends_with("+json")
        });
        if !json {
            let detail = format!("Send JSON (`Content-Type: application/json`), not `{}`.", kind.unwrap_or_default());
            return Err(Problem::new(415, "unsupported_media_type", detail).into());
        }
        Self::whole_with(request, state).await.map(Self)
    }
}

impl Payload {
    /// A body whatever it is, within the limit.
    ///
    /// # Errors
    /// 413 `too_large`, or 400 `malformed` when the connection broke off.
    pub async fn whole(request: Request) -> Result<Bytes, Fault> {
        Self::whole_with(request, &()).await
    }

    async fn whole_with<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Fault> {
        Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status().as_u16() {
            413 => Problem::new(413, "too_large", "The body is larger than this server takes.").into(),
            _ => Problem::malformed(format!("The body could not be read: {rejection}.")).into(),
        })
    }

    /// Reads the body as an object; an empty body counts as `{}`.
    ///
    /// # Errors
    /// See [`kernel::object`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        Ok(kernel::object(&self.0)?)
    }
}

/// A body as OAuth sends it, `application/x-www-form-urlencoded`; or JSON with the same fields.
pub struct Fields {
    bytes: Bytes,
    form: bool,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Fault;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Fault> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if form {
            request.headers_mut().remove(header::CONTENT_TYPE);
        }
        let Payload(bytes) = Payload::from_request(request, state).await?;
        Ok(Self { bytes, form })
    }
}

impl Fields {
    /// Whether it came as a form.
    #[must_use]
    pub fn is_form(&self) -> bool {
        self.form
    }

    /// Reads the fields. One that is there twice is refused.
    ///
    /// # Errors
    /// See [`kernel::object`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match self.form {
            true => serde_urlencoded::from_bytes(&self.bytes)
                .map_err(|error| Problem::new(422, "invalid", format!("The form does not fit: {error}."))),
            false => kernel::object(&self.bytes),
        }
    }
}

/// A query string; unknown parameters are refused where the type says so.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Self(query.0)),
            Err(rejection) => {
                let detail = format!("The query does not fit: {}.", rejection.body_text());
                Err(Problem::new(400, "invalid_query", detail).into())
            }
        }
    }
}

/// A part of the path that names something: a text that can be a name or an id at all. What does not exist is still 404,
/// but what cannot exist does not reach a database.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let found = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let text = found.ok().map(|path| path.0).filter(|text| kernel::storable::is_word(text));
        let detail = "The last part of the path is not a name: use 1 to 128 visible ASCII characters without blanks.";
        Ok(Self(text.ok_or_else(|| Problem::new(400, "invalid_name", detail))?))
    }
}

/// As [`Segment`], for a path with two of them.
pub struct Segments(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let found = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let is_word = |text: &String| kernel::storable::is_word(text);
        let words = found.ok().map(|path| path.0).filter(|(first, second)| is_word(first) && is_word(second));
        let detail = "A part of the path is not a name: use 1 to 128 visible ASCII characters without blanks.";
        let (first, second) = words.ok_or_else(|| Problem::new(400, "invalid_name", detail))?;
        Ok(Self(first, second))
    }
}

/// Checks a name from a query.
///
/// # Errors
/// 400 `invalid_query`.
pub fn name(parameter: &str, text: &str) -> Result<(), Fault> {
    match kernel::storable::is_word(text) {
        true => Ok(()),
        false => Err(Problem::new(400, "invalid_query", format!("`{parameter}` is not a name.")).into()),
    }
}

/// `limit` and `cursor`.
#[derive(Debug, Clone, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items per page: 1 to 500.
    #[param(default = 50)]
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The limit, within its bounds.
    ///
    /// # Errors
    /// 400 `invalid_query` when it is out of bounds.
    pub fn limit(&self) -> Result<usize, Fault> {
        check_limit(self.limit)
    }

    /// The cursor as a position.
    ///
    /// # Errors
    /// 400 `invalid_position`.
    pub fn position(&self) -> Result<Option<Position>, Fault> {
        Ok(self.cursor.as_deref().map(str::parse).transpose()?)
    }
}

/// Checks a page size.
pub(crate) fn check_limit(limit: Option<usize>) -> Result<usize, Fault> {
    match limit.unwrap_or(50) {
        limit @ 1..=500 => Ok(limit),
        limit => Err(Problem::new(400, "invalid_query", format!("`limit` is {limit}; it may be 1 to 500.")).into()),
    }
}

/// `?at_least=<position>`: answer only once the rows include that position.
#[derive(Debug, Clone, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AtLeast {
    /// A position from an earlier answer.
    pub at_least: Option<String>,
}

/// The chain that a request belongs to.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// `Airstream-Correlation-Id`.
    pub correlation: Option<String>,
    /// W3C `traceparent`.
    pub traceparent: Option<String>,
}

impl Chain {
    /// Reads the headers. Over-long or unprintable values are left out rather than refused: they are for tracing.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            kernel::storable::is_word(value).then(|| value.to_owned())
        };
        Self { correlation: text("airstream-correlation-id"), traceparent: text("traceparent") }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Chain {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}
