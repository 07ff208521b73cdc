//! Logs, on stderr: constant messages, values as fields, never the contents of arguments.

use std::io;

use tracing_subscriber::EnvFilter;

/// What is logged where nobody says otherwise. `rmcp` logs payloads at `info`.
const DEFAULT: &str = "info,rmcp=warn";

/// Starts logging as `level` says (a level, or directives as in `RUST_LOG`), else `RUST_LOG`, else [`DEFAULT`].
///
/// # Errors
/// What is wrong with `level`, in words.
pub(crate) fn start(level: Option<&str>) -> Result<(), String> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let filter = filter(level, from_environment.as_deref())?;
    // A second start in one process keeps the first.
    let _ = tracing_subscriber::fmt()
        .compact()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .with_env_filter(filter)
        .try_init();
    Ok(())
}

fn filter(level: Option<&str>, from_environment: Option<&str>) -> Result<EnvFilter, String> {
    let words = |what: &str, text: &str| {
        format!(
            "error: {what} cannot be `{text}`\n  hint: write error, warn, info, debug, trace or off, or directives like holdfast=debug,info"
        )
    };
    match (level, from_environment) {
        // A plain level still keeps the payloads of libraries out.
        (Some(level), _) if level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok() => {
            EnvFilter::try_new(format!("{level},rmcp=warn")).map_err(|_| words("--log-level", level))
        }
        (Some(level), _) => EnvFilter::try_new(level).map_err(|_| words("--log-level", level)),
        (None, Some(directives)) => EnvFilter::try_new(directives).map_err(|_| words("RUST_LOG", directives)),
        (None, None) => Ok(EnvFilter::new(DEFAULT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_what_is_logged() {
        let shown = |level: Option<&str>, env: Option<&str>| filter(level, env).expect("valid").to_string();
        assert_eq!(shown(None, None), "rmcp=warn,info");
        assert_eq!(shown(Some("debug"), Some("trace")), "rmcp=warn,debug");
        assert_eq!(shown(None, Some("trace")), "trace");
        assert_eq!(shown(Some("holdfast=debug"), None), "holdfast=debug");
        assert!(filter(Some("a=b=c"), None).is_err_and(|words| words.contains("hint: ")));
    }
}
