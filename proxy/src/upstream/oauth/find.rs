//! Who gives tokens for a server, and where: protected resource metadata (RFC 9728), authorization server metadata
//! (RFC 8414, OpenID Connect Discovery), and the fixed places of MCP 2025-03-26 where a server has neither.

use std::time::Duration;

use reqwest::{Client, Url, header::ACCEPT};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    challenge::Challenge,
    grant::{Identity, Method},
    reach,
};
use crate::{config::Reach, inbox::visible::visible};

const LIMIT: Duration = Duration::from_secs(10);
const LARGEST_BYTES: usize = 256 * 1024;

/// What a server says of itself.
#[derive(Debug, Deserialize)]
struct Resource {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

/// What an authorization server says of itself.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: String,
    registration_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
}

/// Everything that is needed to ask for a token.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) registration_endpoint: Option<Url>,
    /// What the token is for (RFC 8707); none where the server does not describe itself.
    pub(super) resource: Option<String>,
    pub(super) takes_documents: bool,
    /// How a client may show its secret, the best first.
    pub(super) methods: Vec<Method>,
    scopes: Vec<String>,
    offline: bool,
    pkce: bool,
    iss: bool,
}

/// Who looks, and where that may lead.
pub(super) struct Look<'a> {
    pub(super) client: &'a Client,
    /// The server that a token is wanted for.
    pub(super) server: &'a Url,
    pub(super) reach: Reach,
    pub(super) wanted: Wanted<'a>,
}

/// Which authorization server will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// Whichever the server names first.
    Any,
    /// Only this one, because the operator says so.
    Only(&'a str),
    /// Only the one that was used before: it knows a secret of ours that others must not hear.
    Before(&'a str),
}

impl Wanted<'_> {
    /// The issuer to ask, of those that the server names.
    fn of(self, named: &[String]) -> Result<String, String> {
        let Some(first) = named.first() else {
            return Err("the server names no authorization server".to_owned());
        };
        let (Self::Only(wanted) | Self::Before(wanted)) = self else { return Ok(first.clone()) };
        if let Some(found) = named.iter().find(|named| same(named, wanted)) {
            return Ok(found.clone());
        }
        let (first, wanted) = (visible(first), visible(wanted));
        Err(match self {
            Self::Before(_) => format!(
                "its authorization server was {wanted} and is {first} now, which would hear our client id and secret; \
                 if that is meant, sign in with `--issuer {first}`, or write issuer = \"{first}\" in its `oauth`"
            ),
            Self::Any | Self::Only(_) => {
                format!("the server names {first} as its authorization server, and only {wanted} is accepted")
            }
        })
    }
}

/// Finds it out.
///
/// # Errors
/// What is missing or does not fit, in words.
pub(super) async fn find(look: &Look<'_>, challenge: &Challenge) -> Result<Found, String> {
    let server = look.server;
    let resource = look.resource(challenge).await?;
    let issuer = match &resource {
        Some(resource) => look.wanted.of(&resource.authorization_servers)?,
        None => look.wanted.of(&[server.origin().ascii_serialization()])?,
    };
    let issuer_url = look.allowed(&issuer)?;
    let metadata = look.metadata(&issuer_url).await?;
    let known = metadata.is_some();
    let metadata = match metadata {
        Some(metadata) if same(&metadata.issuer, &issuer) => metadata,
        Some(metadata) => {
            return Err(format!(
                "the authorization server at {} says that it is {}",
                visible(&issuer),
                visible(&metadata.issuer)
            ));
        }
        None if resource.is_none() => fixed(server, &issuer),
        None => return Err(format!("the authorization server {} has no metadata", visible(&issuer))),
    };
    let token_endpoint = look.allowed(&metadata.token_endpoint)?;
    let authorization = metadata.authorization_endpoint.as_deref();
    Ok(Found {
        authorization_endpoint: match authorization {
            Some(endpoint) => look.allowed(endpoint)?,
            // Only needed where a person signs in, who then sees where this leads.
            None => issuer_url,
        },
        token_endpoint,
        registration_endpoint: metadata
            .registration_endpoint
            .as_deref()
            .map(|url| look.allowed(url))
            .transpose()?,
        takes_documents: metadata.client_id_metadata_document_supported,
        methods: Method::offered(metadata.token_endpoint_auth_methods_supported.as_deref()),
        offline: metadata.scopes_supported.iter().any(|scope| scope == "offline_access"),
        pkce: !known || metadata.code_challenge_methods_supported.iter().any(|method| method == "S256"),
        iss: metadata.authorization_response_iss_parameter_supported,
        scopes: resource.as_ref().map(|resource| resource.scopes_supported.clone()).unwrap_or_default(),
        resource: resource.map(|resource| resource.resource),
        issuer,
    })
}

impl Found {
    /// # Errors
    /// Where a code could be used by whoever intercepts it.
    pub(super) fn can_do_pkce(&self) -> Result<(), String> {
        let why =
            "the authorization server does not offer PKCE with S256, without which a code can be stolen";
        if self.pkce { Ok(()) } else { Err(why.to_owned()) }
    }

    /// Whether the answer comes from the authorization server that was asked (RFC 9207).
    ///
    /// # Errors
    /// Where it does not, or does not say so although that server always does.
    pub(super) fn check_issuer(&self, iss: Option<&str>) -> Result<(), String> {
        match iss {
            Some(iss) if iss == self.issuer => Ok(()),
            Some(iss) => {
                Err(format!("the answer is from {}, not from {}", visible(iss), visible(&self.issuer)))
            }
            None if self.iss => {
                Err("the answer does not say which authorization server it is from".to_owned())
            }
            None => Ok(()),
        }
    }

    /// What to ask for: what the server wants, else what is configured, else all that the server knows.
    pub(super) fn scope(&self, challenge: &Challenge, configured: &[String]) -> Option<String> {
        let mut scopes: Vec<&str> = challenge.scopes.iter().map(String::as_str).collect();
        if scopes.is_empty() {
            scopes = configured.iter().map(String::as_str).collect();
        }
        if scopes.is_empty() {
            scopes = self.scopes.iter().map(String::as_str).collect();
        }
        // Without it some servers give no refresh token.
        if self.offline && !scopes.contains(&"offline_access") {
            scopes.push("offline_access");
        }
        (!scopes.is_empty()).then(|| scopes.join(" "))
    }

    /// A client with this id, and how it shows its secret there.
    pub(super) fn identity(&self, id: String, secret: Option<String>) -> Identity {
        let method = match &secret {
            None => Method::None,
            Some(_) => self.methods.iter().copied().find(|one| *one != Method::None).unwrap_or(Method::Basic),
        };
        Identity { id, secret, method }
    }
}

impl Look<'_> {
    /// A URL that may be asked or shown to a person: what a server says must not lead to weaker places than it is itself.
    fn allowed(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|_| format!("{} is not an address", visible(text)))?;
        let here = |url: &Url| {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        };
        match url.scheme() {
            "https" => match reach::is_near(&url) {
                Some(why) if self.reach == Reach::Public && reach::is_near(self.server).is_none() => {
                    Err(reach::words(&visible(text), why))
                }
                _ => Ok(url),
            },
            "http" if here(&url) && here(self.server) => Ok(url),
            _ => Err(format!("{} is not https", visible(text))),
        }
    }

    /// None where the server does not describe itself.
    async fn resource(&self, challenge: &Challenge) -> Result<Option<Resource>, String> {
        let path = self.server.path().trim_end_matches('/');
        let places = match &challenge.metadata {
            Some(place) => vec![self.allowed(place)?],
            None => {
                let mut places = vec![well_known(self.server, "oauth-protected-resource", path)];
                if !path.is_empty() {
                    places.push(well_known(self.server, "oauth-protected-resource", ""));
                }
                places
            }
        };
        for place in places {
            let Some(found) = self.read::<Resource>(&place).await? else { continue };
            let resource = self.allowed(&found.resource)?;
            // Whoever can put up such a document elsewhere would get tokens for us.
            if !covers(&resource, self.server) {
                return Err(format!("it describes another server than itself: {}", visible(&found.resource)));
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    async fn metadata(&self, issuer: &Url) -> Result<Option<Metadata>, String> {
        let path = issuer.path().trim_end_matches('/');
        let mut places = vec![
            well_known(issuer, "oauth-authorization-server", path),
            well_known(issuer, "openid-configuration", path),
        ];
        if !path.is_empty() {
            let mut appended = issuer.clone();
            appended.set_path(&format!("{path}/.well-known/openid-configuration"));
            places.push(appended);
        }
        for place in places {
            if let Some(found) = self.read(&place).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// None where nothing is there.
    async fn read<T: DeserializeOwned>(&self, place: &Url) -> Result<Option<T>, String> {
        let failed = |what: &str| format!("{} {what}", visible(place.as_str()));
        let asked = async {
            let request = self.client.get(place.clone()).header(ACCEPT, "application/json");
            let mut response = request
                .send()
                .await
                .map_err(|error| reach::refusal(&error).unwrap_or_else(|| failed("cannot be reached")))?;
            if !response.status().is_success() {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|_| failed("broke off"))? {
                bytes.extend_from_slice(&part);
                if bytes.len() > LARGEST_BYTES {
                    return Err(failed("says too much"));
                }
            }
            Ok(Some(bytes))
        };
        let bytes = timeout(LIMIT, asked).await.map_err(|_| failed("did not answer in time"))??;
        // A page that says "not found" with 200 is no metadata.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

fn well_known(of: &Url, name: &str, path: &str) -> Url {
    let mut url = of.clone();
    url.set_path(&format!("/.well-known/{name}{path}"));
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Where MCP 2025-03-26 has everything that is not described.
fn fixed(server: &Url, issuer: &str) -> Metadata {
    let at = |path: &str| {
        let mut url = server.clone();
        url.set_path(path);
        url.set_query(None);
        url.to_string()
    };
    Metadata {
        issuer: issuer.to_owned(),
        authorization_endpoint: Some(at("/authorize")),
        token_endpoint: at("/token"),
        registration_endpoint: Some(at("/register")),
        ..Metadata::default()
    }
}

/// Whether `resource` is `server` or what it is a part of.
fn covers(resource: &Url, server: &Url) -> bool {
    let path = resource.path().trim_end_matches('/');
    let rest = server.path().strip_prefix(path);
    resource.origin() == server.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Issuers are compared as they are written, but for a slash at the end that only some put there.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("an address")
    }

    #[test]
    fn a_resource_covers_what_is_below_it() {
        let server = url("https://h.example/a/mcp");
        for (resource, expected) in [
            ("https://h.example/a/mcp", true),
            ("https://h.example/a/mcp/", true),
            ("https://h.example/a", true),
            ("https://h.example", true),
            ("https://h.example/a/mc", false),
            ("https://h.example/b", false),
            ("https://evil.example/a/mcp", false),
            ("http://h.example/a/mcp", false),
            ("https://h.example:444/a/mcp", false),
        ] {
            assert_eq!(covers(&url(resource), &server), expected, "{resource}");
        }
    }

    #[test]
    fn metadata_leads_to_no_weaker_place() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
        let check = |server: &str, place: &str, expected: bool| {
            let server = url(server);
            let look = Look { client: &client, server: &server, reach: Reach::Public, wanted: Wanted::Any };
            assert_eq!(look.allowed(place).is_ok(), expected, "{place}");
        };
        check("https://h.example/mcp", "https://login.example", true);
        check("https://h.example/mcp", "http://login.example", false);
        check("https://h.example/mcp", "http://127.0.0.1:9/token", false);
        check("http://127.0.0.1:8/mcp", "http://localhost:9/token", true);
        check("http://127.0.0.1:8/mcp", "javascript:alert(1)", false);
        check("http://127.0.0.1:8/mcp", "file:///etc/passwd", false);
        for near in [
            "https://10.0.0.1/token",
            "https://[::ffff:127.0.0.1]",
            "https://100.64.0.1",
            "https://db.internal",
        ] {
            check("https://h.example/mcp", near, false);
            check("https://192.168.1.1/mcp", near, true);
        }
    }

    #[test]
    fn one_authorization_server_is_as_good_as_another_unless_it_knows_a_secret() {
        let named = ["https://a.example".to_owned(), "https://b.example/".to_owned()];
        let of = |wanted: Wanted<'_>| wanted.of(&named);
        assert_eq!(of(Wanted::Any).as_deref(), Ok("https://a.example"));
        assert_eq!(of(Wanted::Only("https://b.example")).as_deref(), Ok("https://b.example/"));
        assert_eq!(of(Wanted::Before("https://a.example/")).as_deref(), Ok("https://a.example"));
        let refused = of(Wanted::Only("https://c.example")).expect_err("another");
        assert!(refused.contains("only https://c.example is accepted"), "{refused}");
        let refused = of(Wanted::Before("https://c.example")).expect_err("another");
        assert!(
            refused.contains("--issuer https://a.example") && refused.contains("was https://c.example"),
            "{refused}"
        );
        assert!(Wanted::Any.of(&[]).is_err());
    }
}
