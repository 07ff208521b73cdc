//! Servers, and how they are reached and signed in to.

use super::*;

#[test]
fn how_a_server_is_spoken_to_and_signed_in_to() {
    let old = r#"{"mcpServers":{"a":{"type":"sse","url":"https://h/sse"}}}"#;
    let (config, warnings) = import("m.json", old, "[servers.a]\nshare = 'session'").expect("valid");
    assert_eq!((config.servers[0].http.old, warnings), (true, Vec::new()));
    let oauth = "version = 1\n[servers.a]\nurl = 'https://h/mcp'\n[servers.a.oauth]\nclient_id = 'us'\nclient_secret = 'hidden'\ngrant = 'client_credentials'";
    let (config, _) = read(oauth).expect("valid");
    let known = &config.servers[0].http.oauth;
    assert_eq!((known.client_id.as_deref(), known.grant), (Some("us"), Grant::ClientCredentials));
    assert!(
        known.vault.as_ref().is_some_and(|vault| vault.ends_with("holdfast.redb.oauth.json")),
        "{:?}",
        known.vault
    );
    assert!(!format!("{config:?}").contains("hidden"));
    let more =
        read(&format!("{oauth}\nissuer = 'https://login.example'\nallow_private = true")).expect("valid").0;
    let known = &more.servers[0].http.oauth;
    assert_eq!((known.issuer.as_deref(), known.reach), (Some("https://login.example"), Reach::Any));
    let problems = read(&format!("{oauth}\nissuer = 'login'")).expect_err("no address");
    assert!(problems[0].message.contains("address of an authorization server"), "{problems:?}");
    let problems = read(&oauth.replace("client_secret = 'hidden'\n", "")).expect_err("no secret");
    assert!(problems[0].message.contains("a client of its own"), "{problems:?}");
    let problems = read("version = 1\n[servers.a]\ncommand = 'a'\ntype = 'sse'").expect_err("no pipe");
    assert!(problems[0].message.contains("by stdio"), "{problems:?}");
}

#[test]
fn an_imported_server_can_get_settings_but_no_second_meaning() {
    let json = r#"{"mcpServers":{"a":{"command":"x"}}}"#;
    let (config, _) = import("m.json", json, "[servers.a]\nshare = 'session'").expect("settings");
    assert_eq!((config.servers.len(), config.servers[0].share), (1, Share::Session));
    let problems = import("m.json", json, "[servers.a]\ncommand = 'y'").expect_err("two meanings");
    assert!(problems[0].message.contains("also imported"), "{problems:?}");
    let problems = read("version = 1\n[import]\nmcp_servers = ['gone.json']").expect_err("no such file");
    assert_eq!((problems[0].line, problems[0].message.contains("gone.json cannot be read")), (3, true));
}
