//! Where the search for a token may lead: what a server says must not lead us into networks that it is not in itself.
//!
//! A name can mean another address by the time it is used (rebinding). So the check stands in the resolver that the
//! connection itself uses; there is no second look-up. The server's own name is the operator's word and not looked at.

use std::{collections::HashSet, error::Error as _, fmt, net::IpAddr, sync::Arc};

use reqwest::{
    ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::{
    config::Reach,
    notify::{LookUp, SystemLookUp, refused_address},
};

/// That something is not asked, because of where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Why this place is refused, where it says so by itself: an address, or a name that means one nearby.
pub(super) fn is_near(url: &Url) -> Option<&'static str> {
    let host = host(url);
    if host == "localhost" || host.ends_with(".localhost") {
        return Some("this machine");
    }
    if host.ends_with(".internal") || host.ends_with(".local") {
        return Some("a name of a private network");
    }
    host.parse::<IpAddr>().ok().and_then(refused_address)
}

/// The words about a place that is refused.
pub(super) fn words(host: &str, why: &str) -> String {
    format!(
        "{host} is {why}, and the server is not: if that is meant, write allow_private = true in its `oauth`"
    )
}

/// A client that is to find tokens for `server` connects to no private address, unless the server has one itself or the
/// operator has allowed it.
pub(in super::super) fn guarded(client: ClientBuilder, server: &Url, reach: Reach) -> ClientBuilder {
    if reach == Reach::Any || is_near(server).is_some() {
        return client;
    }
    let proxies = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].into_iter().flat_map(|name| {
        [std::env::var(name), std::env::var(name.to_ascii_lowercase())].into_iter().filter_map(Result::ok)
    });
    // The operator's own proxy may be anywhere; it is who resolves names then.
    let proxies = proxies.filter_map(|proxy| {
        let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
        Some(host(&Url::parse(&proxy).ok()?).to_owned())
    });
    let known = proxies.chain([host(server).to_owned()]).collect();
    client.dns_resolver(Guard { look_up: Arc::new(SystemLookUp), known })
}

/// Why a request was not made; none where it failed otherwise.
pub(super) fn refusal(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused.to_string());
        }
        cause = error.source();
    }
    None
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

/// Gives the addresses of a name only if all of them may be connected to.
struct Guard<L> {
    look_up: Arc<L>,
    /// Names that the operator has written.
    known: HashSet<String>,
}

impl<L: LookUp> Resolve for Guard<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let (look_up, known) = (self.look_up.clone(), self.known.contains(name.as_str()));
        Box::pin(async move {
            let found = look_up.look_up(name.as_str().to_owned()).await?;
            // One private address among public ones is no accident: which one is taken would be chance.
            let bad = found.iter().find_map(|address| refused_address(address.ip()));
            if let Some(why) = bad.filter(|_| !known) {
                return Err(Refused(words(name.as_str(), why)).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Mutex};

    use super::*;
    use crate::notify::LookedUp;

    /// Each look-up gives the next of these.
    struct Script(Mutex<Vec<Vec<&'static str>>>);

    impl LookUp for Script {
        fn look_up(&self, _: String) -> LookedUp {
            let next = self.0.lock().expect("whole").remove(0);
            let all =
                next.into_iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0)).collect();
            Box::pin(async move { Ok(all) })
        }
    }

    async fn resolve(guard: &Guard<Script>, name: &str) -> Result<Vec<IpAddr>, String> {
        let name: Name = name.parse().expect("a name");
        let found = guard.resolve(name).await.map_err(|error| error.to_string())?;
        Ok(found.map(|address| address.ip()).collect())
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_not_followed_whenever_they_do() {
        let answers = vec![
            vec!["93.184.216.34"],
            vec!["127.0.0.1"],
            vec!["93.184.216.34", "10.0.0.1"],
            vec!["169.254.169.254"],
            vec!["10.1.2.3"],
        ];
        let known = ["mcp.example".to_owned()].into();
        let guard = Guard { look_up: Arc::new(Script(Mutex::new(answers))), known };
        assert!(resolve(&guard, "login.example").await.is_ok());
        for why in ["this machine", "private network", "local link"] {
            let refused = resolve(&guard, "login.example").await.expect_err(why);
            assert!(refused.contains(why) && refused.contains("allow_private = true"), "{refused}");
        }
        assert!(resolve(&guard, "mcp.example").await.is_ok(), "the operator wrote it");
    }

    #[tokio::test]
    async fn the_connection_itself_asks_the_guard() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let look_up = Arc::new(Script(Mutex::new(vec![vec!["127.0.0.1"]])));
        let client = reqwest::Client::builder().tls_certs_only([]).no_proxy();
        let client = client.dns_resolver(Guard { look_up, known: HashSet::new() }).build().expect("a client");
        let error = client.get("https://login.example/").send().await.expect_err("refused");
        assert!(
            refusal(&error).is_some_and(|why| why.starts_with("login.example is this machine")),
            "{error:?}"
        );
    }

    #[test]
    fn places_that_say_by_themselves_where_they_are() {
        let check = |place: &str, near: bool| {
            assert_eq!(is_near(&place.parse().expect("an address")).is_some(), near, "{place}");
        };
        for near in [
            "localhost",
            "a.localhost",
            "db.internal",
            "nas.local",
            "10.0.0.1",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "2130706433",
        ] {
            check(&format!("https://{near}/x"), true);
        }
        for far in ["login.example", "8.8.8.8", "internal.example", "localhost.example"] {
            check(&format!("https://{far}/x"), false);
        }
    }
}
