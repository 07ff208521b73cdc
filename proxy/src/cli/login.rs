//! `holdfast login`: a person signs in to a server that wants OAuth.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use super::{Done, Failure, Global, client::Client, out, source::serve};
use crate::{inbox::visible::visible, report::Report};

/// As long as the address works.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The server's name in the configuration
    server: String,
    /// The authorization server to sign in at, where it is not the one of before
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Only print where to go
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(global: &Global, args: &LoginArgs) -> Done {
    let client = serve(global)?;
    let wish = json!({ "server": args.server, "issuer": args.issuer });
    let begun: Value = client.post("servers/sign-in", wish.to_string())?;
    out::talk("Open this with a browser that can open the inbox; it works once, within ten minutes:");
    out::data(begun["url"].as_str().unwrap_or_default());
    if args.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if is_signed_in(&client, &args.server)? {
            out::talk(&format!("Signed in to {}.", visible(&args.server)));
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::from(
        Report::new("not-now", "nobody has signed in").hint("Begin again: holdfast login SERVER"),
    ))
}

fn is_signed_in(client: &Client, server: &str) -> Result<bool, Report> {
    let all: Value = client.get("servers")?;
    let mut servers = all["servers"].as_array().into_iter().flatten();
    Ok(servers.any(|one| one["name"] == server && one["oauth"] == "signed-in" && one["state"] != "down"))
}
