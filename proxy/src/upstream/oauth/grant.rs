//! Requests to an authorization server: tokens, and who we are (RFC 6749, RFC 7591).

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use form_urlencoded::Serializer;
use reqwest::{
    Client, RequestBuilder, Url,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{find::Found, reach};
use crate::inbox::visible::visible;

const LIMIT: Duration = Duration::from_secs(15);
const LARGEST_BYTES: usize = 256 * 1024;

/// How a client shows its secret at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Method {
    /// It has none.
    #[default]
    #[serde(rename = "none")]
    None,
    /// In a header.
    #[serde(rename = "client_secret_basic")]
    Basic,
    /// In the body.
    #[serde(rename = "client_secret_post")]
    Post,
}

impl Method {
    /// Those of `named` that we know; where nothing is named, the header is (RFC 8414).
    pub(super) fn offered(named: Option<&[String]>) -> Vec<Self> {
        let Some(named) = named else { return vec![Self::Basic] };
        let known =
            [("none", Self::None), ("client_secret_basic", Self::Basic), ("client_secret_post", Self::Post)];
        known
            .into_iter()
            .filter(|(name, _)| named.iter().any(|one| one == name))
            .map(|(_, one)| one)
            .collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
        }
    }
}

/// Who we are to an authorization server.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) method: Method,
}

/// What a token endpoint gives.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: String,
    token_type: String,
    pub(super) expires_in: Option<u64>,
    pub(super) refresh_token: Option<String>,
    pub(super) scope: Option<String>,
}

/// Asks for tokens.
///
/// # Errors
/// Why there are none, without any secret.
pub(super) async fn ask(
    client: &Client,
    endpoint: &Url,
    who: &Identity,
    form: &[(&str, &str)],
) -> Result<Tokens, String> {
    let mut form = form.to_vec();
    let mut request = client.post(endpoint.clone());
    match (who.method, &who.secret) {
        (Method::Basic, Some(secret)) => {
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(&who.id), encoded(secret)));
            request = request.header("authorization", format!("Basic {pair}"));
        }
        (Method::Post, Some(secret)) => {
            form.extend([("client_id", who.id.as_str()), ("client_secret", secret)]);
        }
        _ => form.push(("client_id", &who.id)),
    }
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    let answer = answer(request, "the token endpoint").await?;
    let tokens: Tokens =
        serde_json::from_value(answer).map_err(|_| "the token endpoint gave no token".to_owned())?;
    if tokens.token_type.eq_ignore_ascii_case("bearer") {
        Ok(tokens)
    } else {
        Err(format!("the token endpoint gave a token of the type {}", visible(&tokens.token_type)))
    }
}

/// Registers us (RFC 7591).
///
/// # Errors
/// Why that is not possible.
pub(super) async fn register(client: &Client, found: &Found, redirect: &str) -> Result<Identity, String> {
    let endpoint = found.registration_endpoint.clone().ok_or(
        "the authorization server registers nobody: write `client_id` into [servers.NAME.oauth], as its operator gave it",
    )?;
    let method = found.methods.first().copied().unwrap_or(Method::Basic);
    let is_here = redirect.starts_with("http://");
    let wish = json!({
        "client_name": "Holdfast",
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method.name(),
        "application_type": if is_here { "native" } else { "web" },
    });
    let request = client.post(endpoint).header(CONTENT_TYPE, "application/json").body(wish.to_string());
    let answer = answer(request, "the registration").await?;
    #[derive(Deserialize)]
    struct Registered {
        client_id: String,
        client_secret: Option<String>,
        token_endpoint_auth_method: Option<String>,
    }
    let registered: Registered =
        serde_json::from_value(answer).map_err(|_| "the registration gave no client id".to_owned())?;
    let given =
        Method::offered(registered.token_endpoint_auth_method.map(|one| [one]).as_ref().map(|one| &one[..]));
    let method = match (&registered.client_secret, given.first()) {
        (None, _) => Method::None,
        (Some(_), Some(given)) => *given,
        (Some(_), None) => method,
    };
    Ok(Identity { id: registered.client_id, secret: registered.client_secret, method })
}

async fn answer(request: RequestBuilder, who: &str) -> Result<Value, String> {
    let asked = async {
        let unreachable = |error: reqwest::Error| {
            reach::refusal(&error).unwrap_or_else(|| format!("{who} cannot be reached"))
        };
        let mut response = request.header(ACCEPT, "application/json").send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&part);
            if bytes.len() > LARGEST_BYTES {
                return Err(format!("{who} says too much"));
            }
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let said = ["error", "error_description"].map(|name| value[name].as_str().map(visible));
        let said: Vec<String> = said.into_iter().flatten().map(|text| text.to_string()).collect();
        Err(format!("{who} refused (HTTP {}): {}", status.as_u16(), said.join(", ")))
    };
    timeout(LIMIT, asked).await.map_err(|_| format!("{who} did not answer in time"))?
}
