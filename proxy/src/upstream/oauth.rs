//! Signing in to servers by HTTP that want OAuth (MCP 2025-11-25 and 2026-07-28, "Authorization").
//!
//! * `challenge`: what a 401 or 403 says. * `find`: who gives tokens for the server, and where.
//! * `reach`: which addresses that may have. * `grant`: tokens for codes, for older tokens, and for ourselves. * `vault`: where they are kept.
//!
//! Invariants: a token goes to the server that it is for and to nobody else; it is never logged. A request that was
//! refused with 401 was not executed, so it is sent once more with another token, and only once.

mod challenge;
mod find;
mod grant;
mod reach;
mod vault;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use reqwest::{Client, Url, header::HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub(super) use self::{challenge::Challenge, reach::guarded};
use self::{
    find::{Found, Look, Wanted, find},
    grant::Tokens,
    vault::{Kept, Vault},
};
use crate::{
    address::random_token,
    config::{Grant, OAuth},
    driver::now,
};

/// A token that ends this soon is replaced first.
const SOON_MS: u64 = 30_000;
/// How long a person may take to sign in.
const SIGN_IN: Duration = Duration::from_secs(600);

/// How we sign in to one server.
pub(crate) struct Authorizer {
    server: Arc<str>,
    /// The server's own address.
    resource: Url,
    config: OAuth,
    client: Client,
    vault: Vault,
    /// What requests carry now.
    bearer: RwLock<Option<HeaderValue>>,
    /// Held while a token is asked for: everybody else waits for that one.
    kept: tokio::sync::Mutex<Kept>,
    /// When the token is to be replaced, in milliseconds since 1970.
    ends: Mutex<Option<u64>>,
    challenge: Mutex<Challenge>,
    flow: Mutex<Option<Flow>>,
}

/// A person is signing in.
struct Flow {
    state: String,
    verifier: String,
    redirect: String,
    found: Found,
    client: grant::Identity,
    scope: Option<String>,
    begun: Instant,
}

/// What comes of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is another token now.
    Again,
    /// A person has to do something, in words.
    SignIn(String),
}

/// What came back with the browser.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    pub(crate) state: String,
    pub(crate) code: Option<String>,
    pub(crate) iss: Option<String>,
    pub(crate) error: Option<String>,
}

impl Authorizer {
    pub(super) fn new(server: Arc<str>, resource: Url, config: OAuth, client: Client) -> Self {
        let vault = Vault::new(config.vault.clone(), &server);
        let mut kept = vault.read();
        if kept.resource != resource.as_str() {
            // Of another server that had the name before.
            kept = Kept { resource: resource.to_string(), ..Kept::default() };
        }
        if let (Some(only), Some(before)) = (&config.issuer, &kept.issuer)
            && !find::same(only, before)
        {
            tracing::info!(target: "upstream", server = &*server, "tokens of another authorization server are dropped");
            kept = Kept { resource: kept.resource, ..Kept::default() };
        }
        let authorizer = Self {
            server,
            resource,
            config,
            client,
            vault,
            bearer: RwLock::new(None),
            kept: tokio::sync::Mutex::default(),
            ends: Mutex::default(),
            challenge: Mutex::default(),
            flow: Mutex::default(),
        };
        authorizer.use_token(&kept);
        Self { kept: tokio::sync::Mutex::new(kept), ..authorizer }
    }

    /// What a request carries now.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        self.bearer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the server has asked for a token that we do not have.
    pub(crate) fn standing(&self) -> Option<&'static str> {
        match (self.bearer(), lock(&self.challenge).seen) {
            (Some(_), _) => Some("signed-in"),
            (None, true) => Some("needed"),
            (None, false) => None,
        }
    }

    /// Replaces a token that is about to end. One that cannot be replaced is tried as it is.
    pub(super) async fn refresh_in_time(&self) {
        let ends_soon = || lock(&self.ends).is_some_and(|ends| ends <= now().0 + SOON_MS);
        if !ends_soon() {
            return;
        }
        let mut kept = self.kept.lock().await;
        if ends_soon()
            && let Err(error) = self.renew(&mut kept).await
        {
            tracing::debug!(target: "upstream", server = &*self.server, error, "a token was not replaced in time");
            *lock(&self.ends) = None;
        }
    }

    /// The server has refused a request that carried `used`.
    pub(super) async fn refused(&self, challenge: Challenge, used: Option<&HeaderValue>) -> Outcome {
        let mut kept = self.kept.lock().await;
        let more = challenge.wants_more();
        lock(&self.challenge).take_in(challenge);
        if !more && self.bearer().as_ref() != used && self.bearer().is_some() {
            return Outcome::Again;
        }
        if self.config.grant == Grant::ClientCredentials {
            return match self.by_ourselves(&mut kept).await {
                Ok(()) => Outcome::Again,
                Err(error) => Outcome::SignIn(format!("no token could be had for it: {error}")),
            };
        }
        let login = format!("sign in with `holdfast login {}`", self.server);
        if more {
            return Outcome::SignIn(format!("it wants more rights than were given: {login}"));
        }
        if kept.refresh_token.is_none() {
            self.drop_token(&mut kept);
            return Outcome::SignIn(format!("it wants somebody to sign in: {login}"));
        }
        match self.renew(&mut kept).await {
            Ok(()) => Outcome::Again,
            Err(error) => {
                tracing::warn!(target: "upstream", server = &*self.server, error, "a token was not replaced");
                // Of an authorization server that is only away the token is still good.
                if !error.contains("invalid_grant") {
                    return Outcome::SignIn(format!("its token could not be renewed just now: {error}"));
                }
                self.drop_token(&mut kept);
                Outcome::SignIn(format!("its token has ended: {login}"))
            }
        }
    }

    /// Begins to sign in: where a person has to go. `redirect` is where they come back to; `issuer` is the authorization
    /// server that they accept, where it is not the one of before.
    ///
    /// # Errors
    /// What does not work, in words.
    pub(crate) async fn begin(&self, redirect: &str, issuer: Option<&str>) -> Result<String, String> {
        if self.config.grant == Grant::ClientCredentials {
            return Err(
                "it is signed in to by its own client id and secret, without anybody's help".to_owned()
            );
        }
        let challenge = self.challenge();
        let mut kept = self.kept.lock().await;
        let found = self.find(&kept, &challenge, issuer).await?;
        found.can_do_pkce()?;
        let client = self.identity(&mut kept, &found, Some(redirect)).await?;
        drop(kept);
        let scope = found.scope(&challenge, &self.config.scopes);
        let flow = Flow {
            state: random_token(),
            verifier: BASE64.encode(rand::random::<[u8; 32]>()),
            redirect: redirect.to_owned(),
            found,
            client,
            scope,
            begun: Instant::now(),
        };
        let url = flow.url();
        *lock(&self.flow) = Some(flow);
        Ok(url)
    }

    /// Whether somebody who is signing in here comes back with this `state`.
    pub(crate) fn awaits(&self, state: &str) -> bool {
        lock(&self.flow).as_ref().is_some_and(|flow| flow.state.as_bytes().ct_eq(state.as_bytes()).into())
    }

    /// Ends what [`Authorizer::begin`] began. Each beginning has one end, whatever it is.
    ///
    /// # Errors
    /// Why nobody is signed in.
    pub(crate) async fn finish(&self, returned: &Returned) -> Result<(), String> {
        let mut kept = self.kept.lock().await;
        let flow = self.awaits(&returned.state).then(|| lock(&self.flow).take()).flatten();
        let flow = flow.filter(|flow| flow.begun.elapsed() < SIGN_IN);
        let flow = flow.ok_or("nobody is signing in to it, or that was too long ago")?;
        flow.found.check_issuer(returned.iss.as_deref())?;
        if let Some(error) = &returned.error {
            return Err(format!("the authorization server refused: {error}"));
        }
        let code = returned.code.as_deref().ok_or("the authorization server gave no code")?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &flow.redirect),
            ("code_verifier", &flow.verifier),
        ];
        let resource = flow.found.resource.clone();
        form.extend(resource.as_deref().map(|resource| ("resource", resource)));
        let tokens = grant::ask(&self.client, &flow.found.token_endpoint, &flow.client, &form).await?;
        self.take(&mut kept, &flow.found, &flow.client, tokens, flow.scope.as_deref());
        Ok(())
    }

    fn challenge(&self) -> Challenge {
        lock(&self.challenge).clone()
    }

    /// Asks for a token by the refresh token.
    async fn renew(&self, kept: &mut Kept) -> Result<(), String> {
        let endpoint = kept.token_endpoint.as_ref().and_then(|endpoint| Url::parse(endpoint).ok());
        let (Some(refresh), Some(endpoint), Some(client)) =
            (kept.refresh_token.clone(), endpoint, kept.client.clone())
        else {
            return Err("there is no refresh token".to_owned());
        };
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
        let resource = kept.token_resource.clone();
        form.extend(resource.as_deref().map(|resource| ("resource", resource)));
        let tokens = grant::ask(&self.client, &endpoint, &client, &form).await?;
        self.keep(kept, tokens, None);
        Ok(())
    }

    /// Asks for a token for ourselves.
    async fn by_ourselves(&self, kept: &mut Kept) -> Result<(), String> {
        let challenge = self.challenge();
        let found = self.find(kept, &challenge, None).await?;
        let client = self.identity(kept, &found, None).await?;
        let scope = found.scope(&challenge, &self.config.scopes);
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(found.resource.as_deref().map(|resource| ("resource", resource)));
        let tokens = grant::ask(&self.client, &found.token_endpoint, &client, &form).await?;
        self.take(kept, &found, &client, tokens, scope.as_deref());
        Ok(())
    }

    /// Who gives tokens for the server. `accepted` is what a person has said just now.
    async fn find(
        &self,
        kept: &Kept,
        challenge: &Challenge,
        accepted: Option<&str>,
    ) -> Result<Found, String> {
        let ours = self.config.client_id.is_some();
        let wanted = match (self.config.issuer.as_deref(), accepted, kept.issuer.as_deref()) {
            (Some(only), ..) | (None, Some(only), _) => Wanted::Only(only),
            (None, None, Some(before)) if ours => Wanted::Before(before),
            _ => Wanted::Any,
        };
        let (client, server, reach) = (&self.client, &self.resource, self.config.reach);
        find(&Look { client, server, reach, wanted }, challenge).await
    }

    /// Who we are to the authorization server: as configured, as registered earlier, or registered now.
    async fn identity(
        &self,
        kept: &mut Kept,
        found: &Found,
        redirect: Option<&str>,
    ) -> Result<grant::Identity, String> {
        if let Some(id) = &self.config.client_id {
            let is_document = id.starts_with("https://");
            if is_document && !found.takes_documents && found.registration_endpoint.is_some() {
                tracing::debug!(target: "upstream", server = &*self.server, "no metadata documents are taken there");
            } else {
                // From here on no other one hears of it, unless somebody says so.
                if kept.issuer.as_deref() != Some(&*found.issuer) {
                    kept.issuer = Some(found.issuer.clone());
                    self.vault.write(kept);
                }
                return Ok(found.identity(id.clone(), self.config.client_secret.clone()));
            }
        }
        let same = kept.issuer.as_deref() == Some(&*found.issuer) && kept.redirect.as_deref() == redirect;
        if let Some(known) = kept.client.clone().filter(|_| same) {
            return Ok(known);
        }
        let redirect = redirect.ok_or("it needs `client_id` and `client_secret` in [servers.NAME.oauth]")?;
        let client = grant::register(&self.client, found, redirect).await?;
        (kept.issuer, kept.redirect) = (Some(found.issuer.clone()), Some(redirect.to_owned()));
        kept.client = Some(client.clone());
        self.vault.write(kept);
        Ok(client)
    }

    fn take(
        &self,
        kept: &mut Kept,
        found: &Found,
        client: &grant::Identity,
        tokens: Tokens,
        scope: Option<&str>,
    ) {
        kept.issuer = Some(found.issuer.clone());
        kept.client = Some(client.clone());
        kept.token_endpoint = Some(found.token_endpoint.to_string());
        kept.token_resource.clone_from(&found.resource);
        kept.refresh_token = None;
        self.keep(kept, tokens, scope);
    }

    fn keep(&self, kept: &mut Kept, tokens: Tokens, scope: Option<&str>) {
        kept.access_token = Some(tokens.access_token);
        kept.ends = tokens.expires_in.map(|seconds| now().0 + seconds.saturating_mul(1_000));
        // Without a new one the old one stays good.
        kept.refresh_token = tokens.refresh_token.or(kept.refresh_token.take());
        kept.scope = tokens.scope.or(scope.map(str::to_owned)).or(kept.scope.take());
        self.vault.write(kept);
        self.use_token(kept);
        tracing::info!(target: "upstream", server = &*self.server, "signed in");
    }

    fn drop_token(&self, kept: &mut Kept) {
        (kept.access_token, kept.refresh_token, kept.ends) = (None, None, None);
        self.vault.write(kept);
        self.use_token(kept);
    }

    fn use_token(&self, kept: &Kept) {
        let header = kept.access_token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        *self.bearer.write().unwrap_or_else(PoisonError::into_inner) = header;
        *lock(&self.ends) = kept.ends.filter(|_| kept.refresh_token.is_some());
        lock(&self.challenge).granted(kept.scope.as_deref());
    }
}

impl Flow {
    /// Where a person has to go (RFC 6749 section 4.1.1, RFC 7636, RFC 8707).
    fn url(&self) -> String {
        let challenge = BASE64.encode(Sha256::digest(self.verifier.as_bytes()));
        let mut url = self.found.authorization_endpoint.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(scope) = &self.scope {
            query.append_pair("scope", scope);
            if scope.split(' ').any(|scope| scope == "offline_access") {
                query.append_pair("prompt", "consent");
            }
        }
        if let Some(resource) = &self.found.resource {
            query.append_pair("resource", resource);
        }
        drop(query);
        url.to_string()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
