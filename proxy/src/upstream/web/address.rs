//! Where a server by HTTP is, and the client that sends each request at most once.

use std::{
    net::IpAddr,
    sync::{Arc, Once, atomic::AtomicBool},
    time::Duration,
};

use reqwest::{
    Client, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};

use super::in_full;
use crate::{
    config::{OAuth, Reach},
    upstream::{Authorizer, oauth::guarded},
};

/// Where a server is, and how it is spoken to. Shared by its connections, and with it the pool of sockets.
pub(in crate::upstream) struct Address {
    pub(super) server: Arc<str>,
    /// Its URL, as the configuration has it.
    pub(super) identity: Box<str>,
    pub(super) url: Url,
    pub(super) client: Client,
    pub(super) headers: HeaderMap,
    /// Whether it speaks the transport of 2024-11-05, as far as is known.
    pub(super) old: AtomicBool,
    /// Who signs in; none where the configured headers do.
    pub(super) auth: Option<Arc<Authorizer>>,
}

impl Address {
    /// # Errors
    /// What is wrong with the URL or with a header.
    pub(in crate::upstream) fn new(
        server: Arc<str>,
        url: &str,
        headers: &[(String, String)],
    ) -> Result<Self, String> {
        let identity = url.into();
        let url: Url = url.parse().map_err(|error| format!("its url cannot be read: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("its url has the scheme `{}`; write http or https", url.scheme()));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let parsed = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let (name, mut value) =
                parsed.ok_or_else(|| format!("its header `{name}` is not a valid header"))?;
            value.set_sensitive(true);
            map.append(name, value);
        }
        map.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let client = client(&url).map_err(|error| format!("no HTTP client for it: {}", in_full(&error)))?;
        Ok(Self { server, identity, url, client, headers: map, old: AtomicBool::new(false), auth: None })
    }

    /// It may want OAuth.
    pub(in crate::upstream) fn signing_in(self, config: &OAuth) -> Self {
        if config.off || self.headers.contains_key(AUTHORIZATION) {
            return self;
        }
        let (server, url) = (self.server.clone(), self.url.clone());
        // Another client: what others say must not use up this one's connections.
        let auth = authority(&self.url, config.reach)
            .ok()
            .map(|client| Authorizer::new(server, url, config.clone(), client));
        Self { auth: auth.map(Arc::new), ..self }
    }

    /// Who signs in.
    pub(in crate::upstream) fn authorizer(&self) -> Option<Arc<Authorizer>> {
        self.auth.clone()
    }

    /// It speaks the transport of 2024-11-05: nobody has to find out.
    pub(in crate::upstream) fn in_the_old_way(self) -> Self {
        Self { old: AtomicBool::new(true), ..self }
    }
}

/// A client that sends each request at most once.
///
/// Redirects are not followed, since they would repeat the request elsewhere, and `retry::never` turns off what
/// reqwest repeats by itself. What remains is hyper taking another connection when a pooled one turns out to be
/// closed before it took the request: nothing was written then. Pooled connections are given up before the common
/// servers close them (after 5 s), since a request that meets such a close is lost.
fn client(url: &Url) -> reqwest::Result<Client> {
    let client = client_for(url);
    // Reading the system's certificates is slow and fails where there are none.
    if url.scheme() == "http" { client.tls_certs_only([]).build() } else { client.build() }
}

/// A client for whoever signs people in to the server at `url`.
fn authority(url: &Url, reach: Reach) -> reqwest::Result<Client> {
    let client = || guarded(client_for(url).timeout(Duration::from_secs(20)), url, reach);
    // A server on this machine may have people sign in elsewhere; without certificates only http works.
    client().build().or_else(|_| client().tls_certs_only([]).build())
}

fn client_for(url: &Url) -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    // An error says that another part of this program has chosen a provider, which is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(4))
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
        client = client.no_proxy();
    }
    client
}
