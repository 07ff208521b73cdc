//! The JSON API of the running `serve`, for commands: one request at a time, waited for.

use std::time::Duration;

use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::report::{self, Report};

/// A client of one inbox, with the token of one operator.
pub(super) struct Client {
    base: String,
    token: String,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Client {
    /// A client of the inbox at `inbox` (`http://ADDR/`).
    ///
    /// # Errors
    /// Where this process cannot open sockets at all.
    pub(super) fn new(inbox: &str, token: String) -> Result<Self, Report> {
        let broken = |error: &dyn std::fmt::Display| {
            Report::new("not-running", format!("no connection can be made: {error}"))
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| broken(&error))?;
        // The listener speaks plain HTTP, but the client insists on knowing who would encrypt.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("holdfast-cli/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| broken(&error))?;
        Ok(Self { base: format!("{}api/v1/", inbox), token, http, runtime })
    }

    /// Reads what stands at `path` (below `/api/v1/`).
    ///
    /// # Errors
    /// The API's own words, or that it cannot be reached.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Report> {
        self.send(Method::GET, path, None)
    }

    /// Posts `body`.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Report> {
        self.send(Method::POST, path, Some(body))
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T, Report> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| unreachable(&self.base, &error))?;
            read(&self.base, response).await
        })
    }
}

async fn read<T: DeserializeOwned>(base: &str, response: Response) -> Result<T, Report> {
    let status = response.status();
    let body = response.bytes().await.map_err(|error| unreachable(base, &error))?;
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &body));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Report::new("not-running", format!("{base} answers what this version cannot read: {error}"))
            .hint("Are command and `holdfast serve` of the same version?")
    })
}

fn refusal(status: u16, body: &[u8]) -> Report {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let code = text("code").and_then(|code| report::codes().find(|known| *known == code));
    let mut report = match (code, text("message")) {
        (Some(code), Some(message)) => Report::new(code, message),
        _ => Report::bad_request(format!("the inbox refused with HTTP status {status}")),
    };
    report.hint = text("hint").map(Box::from);
    report.details = value.get("details").cloned();
    report
}

fn unreachable(base: &str, error: &reqwest::Error) -> Report {
    Report::new("not-running", format!("the inbox at {base} does not answer: {error}"))
        .hint("Has `holdfast serve` just been stopped? Try again.")
}
