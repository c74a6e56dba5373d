//! What every server of ours asks of a request before it looks at its path.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Refuses requests that no path can answer well.
pub async fn check(request: Request, next: Next) -> Response {
    if let Err(problem) = check_host(request.version(), request.headers()) {
        return problem.into_response();
    }
    if is_coded(request.headers()) {
        return refuse_coding();
    }
    next.run(request).await
}

/// A request names the host that it is for, once (RFC 9112 3.2). Otherwise a proxy and this server
/// could take one request for two different hosts.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(Problem::bad_request("send a Host header (RFC 9112 3.2)")),
        (Some(_), Some(_)) => Err(Problem::bad_request("send one Host header, not several (RFC 9112 3.2)")),
        (Some(_), None) => Err(Problem::bad_request("the Host header is no host with an optional port (RFC 9110 7.2)")),
    }
}

/// Empty is allowed: the target may have no host.
fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes().trim_ascii();
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

/// Whether the body is compressed or the like.
fn is_coded(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    !headers.get_all(header::CONTENT_ENCODING).iter().all(plain)
}

/// No body is decompressed: a small one could become any size. RFC 9110 15.5.16 wants
/// `Accept-Encoding` in the answer.
fn refuse_coding() -> Response {
    let problem = Problem::unsupported("send the body as it is, without Content-Encoding: compressed bodies are not read here");
    ([(header::ACCEPT_ENCODING, "identity")], problem).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, StatusCode};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn one_host_is_named() {
        let status = |version, hosts: &[&'static str]| match check_host(version, &headers(header::HOST, hosts)) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        };
        for (version, hosts, expected) in [
            (Version::HTTP_11, &["mail.example.org"][..], 200),
            (Version::HTTP_11, &["[::1]:8080"], 200),
            (Version::HTTP_11, &[""], 200),
            (Version::HTTP_11, &[], 400),
            (Version::HTTP_11, &["a", "b"], 400),
            (Version::HTTP_11, &["a", "a"], 400),
            (Version::HTTP_11, &["a b"], 400),
            (Version::HTTP_11, &["user@a"], 400),
            (Version::HTTP_11, &["a/b"], 400),
            (Version::HTTP_10, &[], 200),
            (Version::HTTP_10, &["a", "b"], 400),
        ] {
            assert_eq!(status(version, hosts), expected, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn a_compressed_body_is_refused_as_such() {
        for (codings, taken) in [(&[][..], true), (&["identity"], true), (&["gzip"], false), (&["identity", "br"], false)] {
            assert_eq!(!is_coded(&headers(header::CONTENT_ENCODING, codings)), taken, "{codings:?}");
        }
        let refusal = refuse_coding();
        assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(refusal.headers()[header::ACCEPT_ENCODING], "identity");
    }
}
