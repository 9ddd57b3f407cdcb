//! The request of an `http` step.

use std::collections::BTreeMap;

use events::workflow::{Http, Method, Retry};
use serde_json::Value;

use super::fields::{Errors, Object};

const MAX_URL_BYTES: usize = 2_048;
const MAX_HEADERS: usize = 50;
const MAX_HEADER_BYTES: usize = 8 * 1024;
const DEFAULT_MAX_RESPONSE_BYTES: u32 = 64 * 1024;
const MAX_MAX_RESPONSE_BYTES: u32 = 64 * 1024;

/// Headers that belong to the connection, not to the request.
const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads the field `http`.
pub(super) fn read(step: &Object<'_>, timeout_ms: u64, retry: Retry, errors: &mut Errors) -> Option<Http> {
    let http = Object::read(step.required("http", errors)?, &step.pointer("http"), errors)?;
    http.only(&["method", "url", "headers", "body", "max_response_bytes"], &[], errors);
    let method = method(&http, errors);
    let url = url(&http, errors);
    let headers = headers(&http, errors);
    let body = http.get("body").cloned();
    if body.is_some() && method == Some(Method::Head) {
        errors.add(&http.pointer("body"), "a HEAD request has no body.");
    }
    let max_response_bytes =
        http.whole("max_response_bytes", 0, MAX_MAX_RESPONSE_BYTES, errors).unwrap_or(DEFAULT_MAX_RESPONSE_BYTES);
    Some(Http { method: method?, url: url?, headers, body, max_response_bytes, timeout_ms, retry })
}

fn method(http: &Object<'_>, errors: &mut Errors) -> Option<Method> {
    let given = http.required("method", errors)?;
    let method = Method::ALL.into_iter().find(|method| given.as_str() == Some(method.as_str()));
    if method.is_none() {
        errors.add(&http.pointer("method"), "must be GET, HEAD, POST, PUT, PATCH or DELETE.");
    }
    method
}

fn url(http: &Object<'_>, errors: &mut Errors) -> Option<String> {
    let given = http.required("url", errors)?;
    let complaint = match given.as_str() {
        None => Some("must be a text."),
        Some(url) => complaint_about(url),
    };
    if let Some(complaint) = complaint {
        errors.add(&http.pointer("url"), complaint);
        return None;
    }
    given.as_str().map(str::to_owned)
}

/// What is wrong with a URL, if anything. Only its shape: whether its host may be called is the caller's business.
fn complaint_about(url: &str) -> Option<&'static str> {
    if url.len() > MAX_URL_BYTES {
        return Some("is longer than 2048 bytes.");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("has blanks, controls or non-ASCII characters; percent-encode them.");
    }
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
        _ => return Some("must begin with http:// or https://."),
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("must not carry credentials: definitions are kept for ever.");
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons inside the brackets of an IPv6 address are not the port's.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_fits = match host.strip_prefix('[') {
        Some(address) => {
            let fits = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
            address.strip_suffix(']').is_some_and(|address| address.contains(':') && address.bytes().all(fits))
        }
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    if !host_fits {
        return Some("has no usable host.");
    }
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err()) {
        return Some("has no usable port.");
    }
    None
}

fn headers(http: &Object<'_>, errors: &mut Errors) -> BTreeMap<String, String> {
    let at = http.pointer("headers");
    let given = http.get("headers").and_then(|headers| Object::read(headers, &at, errors));
    let Some(given) = given else { return BTreeMap::new() };
    if given.iter().count() > MAX_HEADERS {
        errors.add(&at, format!("has more than {MAX_HEADERS} headers."));
        return BTreeMap::new();
    }
    let mut headers = BTreeMap::new();
    for (name, value) in given.iter() {
        let at = given.pointer(name);
        let key = name.to_ascii_lowercase();
        if !is_header_name(name) {
            errors.add(&at, "is not a valid header name.");
        } else if OF_THE_CONNECTION.contains(&key.as_str()) {
            errors.add(&at, "is set by the platform.");
        }
        match value {
            Value::String(value) if is_header_value(value) => {
                if headers.insert(key, value.clone()).is_some() {
                    errors.add(&at, "is given twice; upper and lower case are the same.");
                }
            }
            _ => errors.add(&at, "must be a text of printable ASCII characters."),
        }
    }
    headers
}

/// A token of RFC 9110.
fn is_header_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=256).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_header_value(value: &str) -> bool {
    value.len() <= MAX_HEADER_BYTES && value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}
