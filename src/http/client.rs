//! What every HTTP client of ours has in common: whom it asks, and by which way.

use reqwest::{ClientBuilder, Proxy, redirect};

/// A client that asks directly, or through `proxy` (`http://host:port`) unless that is empty.
///
/// `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` are never heeded: what stands there for the programs
/// of a machine in general is not meant for requests between nodes, which carry their callers'
/// tokens. Nor are redirects followed: they would lead away from the place that was configured,
/// perhaps off TLS.
///
/// # Errors
/// The proxy is no URL.
pub fn builder(proxy: &str) -> reqwest::Result<ClientBuilder> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("mailpush/", env!("CARGO_PKG_VERSION")));
    if proxy.is_empty() { Ok(builder) } else { Ok(builder.proxy(Proxy::all(proxy)?)) }
}
