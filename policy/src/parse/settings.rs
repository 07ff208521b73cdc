//! The settings that a rule or `[defaults]` may set.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::pattern::Pattern;
use crate::plan::{
    Absent, Happened, KeyRule, OnDisconnect, OnJoin, Plan, Preview, PreviewBy, Probe, Rate, Reuse, Scope,
    UpstreamKey, default_settle_ms,
};
use crate::pointer::Pointer;
use crate::rule::{Idempotency, Repeat, Settings};
use crate::source::{OrOff, Section, parse_rate};
use crate::template::{KeyTemplate, Template};

/// What `[defaults]` and rules have in common.
pub(super) fn load(section: &Section<'_>) -> Settings {
    let mut settings = Settings {
        repeat: section
            .one_of("repeat", &[("never", Repeat::Never), ("keyed", Repeat::Keyed), ("safe", Repeat::Safe)]),
        attempt_timeout_ms: positive_ms(section, "attempt_timeout"),
        call_timeout_ms: positive_ms(section, "call_timeout"),
        queue_timeout_ms: positive_ms(section, "queue_timeout"),
        idle_timeout_ms: ms_or_off(section, "idle_timeout"),
        hold_wait_ms: section.duration("hold_wait").map(ms),
        on_disconnect: section
            .one_of("on_disconnect", &[("finish", OnDisconnect::Finish), ("cancel", OnDisconnect::Cancel)]),
        on_join: section.one_of(
            "on_join",
            &[("attach", OnJoin::Attach), ("reject", OnJoin::Reject), ("handle", OnJoin::Handle)],
        ),
        reuse: section.one_of("reuse", &[("never", Reuse::Never), ("after_failure", Reuse::AfterFailure)]),
        detached: section.boolean("detached"),
        reissue_window_ms: ms_or_off(section, "reissue_window"),
        ..Settings::default()
    };
    if let (Some(attempt), Some(call)) = (settings.attempt_timeout_ms, settings.call_timeout_ms)
        && call < attempt
    {
        section.warn(
            "call_timeout",
            "`call_timeout` is shorter than `attempt_timeout`",
            "the whole call ends first, so no attempt gets its full time",
        );
    }
    if let Some(retry) = section.section("retry") {
        load_retry(&retry, &mut settings);
    }
    if let Some(limits) = section.section("limits") {
        load_limits(&limits, &mut settings);
    }
    settings
}

/// What only a rule may set.
pub(super) fn load_parts(section: &Section<'_>, settings: &mut Settings) {
    settings.idempotency = section.section("idempotency").map(|section| load_idempotency(&section));
    settings.preview = section.section("preview").and_then(|section| load_preview(&section));
    settings.probe = section.section("probe").and_then(|section| load_probe(&section));
}

impl Settings {
    /// Sets in `plan` what is set here; for `[defaults]`, which have no parts.
    pub(super) fn apply(self, plan: &mut Plan) {
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut plan.repeat, self.repeat);
        set(&mut plan.retry.attempts, self.attempts);
        set(&mut plan.retry.initial_ms, self.initial_ms);
        set(&mut plan.retry.factor, self.factor);
        set(&mut plan.retry.cap_ms, self.cap_ms);
        set(&mut plan.retry.retry_on, self.retry_on);
        set(&mut plan.limits.concurrency, self.concurrency);
        set(&mut plan.limits.rate, self.rate);
        set(&mut plan.limits.queue, self.queue);
        set(&mut plan.attempt_timeout_ms, self.attempt_timeout_ms);
        set(&mut plan.call_timeout_ms, self.call_timeout_ms);
        set(&mut plan.queue_timeout_ms, self.queue_timeout_ms);
        set(&mut plan.idle_timeout_ms, self.idle_timeout_ms);
        set(&mut plan.hold_wait_ms, self.hold_wait_ms);
        set(&mut plan.on_disconnect, self.on_disconnect);
        set(&mut plan.on_join, self.on_join);
        set(&mut plan.reuse, self.reuse);
        set(&mut plan.detached, self.detached);
        set(&mut plan.reissue_window_ms, self.reissue_window_ms);
    }
}

/// A duration that is not zero, in milliseconds.
pub(super) fn positive_ms(section: &Section<'_>, key: &str) -> Option<u64> {
    let time = section.duration(key).map(ms);
    if time == Some(0) {
        section.problem(
            key,
            format!("`{key}` may not be zero"),
            "nothing could finish in no time; write e.g. \"30s\"",
        );
        return None;
    }
    time
}

fn ms_or_off(section: &Section<'_>, key: &str) -> Option<Option<u64>> {
    match section.duration_or_off(key)? {
        OrOff::Off => Some(None),
        OrOff::Set(time) if time.is_zero() => {
            section.problem(
                key,
                format!("`{key}` may not be zero"),
                "write \"off\", or a time such as \"30s\"",
            );
            None
        }
        OrOff::Set(time) => Some(Some(ms(time))),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn load_retry(section: &Section<'_>, settings: &mut Settings) {
    settings.attempts = section.count("attempts", 1..=1000);
    settings.initial_ms = section.duration("initial").map(ms);
    settings.factor = section.float("factor").filter(|factor| {
        let fits = (1.0..=100.0).contains(factor);
        if !fits {
            section.problem("factor", "`factor` is out of range", "write a number from 1.0 to 100.0");
        }
        fits
    });
    settings.cap_ms = section.duration("cap").map(ms);
    settings.retry_on = section.strings("retry_on").map(|sources| {
        let compiled =
            sources.iter().enumerate().filter_map(|(index, source)| match Pattern::parse(source) {
                Ok(pattern) => Some(pattern),
                Err(bad) => {
                    section.problem_in(
                        "retry_on",
                        index,
                        format!("no regular expression: {bad}"),
                        REGEX_HINT,
                    );
                    None
                }
            });
        compiled.collect()
    });
    section.finish();
}

pub(super) const REGEX_HINT: &str =
    "the syntax is that of the Rust `regex` crate; in TOML, '...' keeps backslashes as they are";

fn load_limits(section: &Section<'_>, settings: &mut Settings) {
    settings.concurrency = section.count("concurrency", 1..=1_000_000);
    settings.queue = section.count("queue", 0..=10_000_000);
    settings.rate =
        section.parsed("rate", "\"off\", \"10/s\", \"100/m\", \"50/h\" or \"20/d\"", |text| match text {
            "off" => Some(None),
            text => parse_rate(text).map(|(count, per_ms)| Some(Rate { count, per_ms })),
        });
    section.finish();
}

fn load_idempotency(section: &Section<'_>) -> Idempotency {
    let key = section.string("key").and_then(|text| match text.as_str() {
        "none" => Some(KeyRule::None),
        "required" => Some(KeyRule::Required),
        template => match KeyTemplate::parse(template) {
            Ok(template) => Some(KeyRule::Effect(template)),
            Err(bad) => {
                let hint = "write \"none\", \"required\" or an effect key such as \"refund:{/charge}\"";
                section.problem("key", format!("this is no key: {bad}"), hint);
                None
            }
        },
    });
    let scope = section.one_of("scope", &[("principal", Scope::Principal), ("everyone", Scope::Everyone)]);
    let shape = "\"arg:/pointer\", \"meta:name\" or \"header:Name\"";
    let upstream = section.parsed("upstream", shape, UpstreamKey::parse);
    section.finish();
    Idempotency { key: key.unwrap_or_default(), scope: scope.unwrap_or_default(), upstream }
}

fn load_preview(section: &Section<'_>) -> Option<Preview> {
    let tool = section.string("tool");
    let args = load_template(section, "args");
    let dry_run = section.section("dry_run").and_then(|section| {
        let arg = load_pointer(&section, "arg");
        let value = section.value("value").unwrap_or(Value::Bool(true));
        section.finish();
        Some(PreviewBy::DryRun { arg: arg?, value })
    });
    let drift = load_pointers(section, "drift");
    section.finish();
    let by = match (tool, dry_run) {
        (Some(_), Some(_)) => {
            section.problem(
                "dry_run",
                "a preview is either a `tool` or a `dry_run`",
                "delete one of the two",
            );
            return None;
        }
        (Some(tool), None) => PreviewBy::Companion { tool, args: args.unwrap_or_else(no_arguments) },
        (None, Some(dry_run)) => {
            if section.has("args") {
                section.problem(
                    "args",
                    "`args` belongs to a preview `tool`",
                    "a dry run has the call's own arguments",
                );
            }
            dry_run
        }
        (None, None) => {
            if !section.has("tool") && !section.has("dry_run") {
                let hint =
                    "write tool = \"NAME\" with args, or dry_run = { arg = \"/dry_run\", value = true }";
                section.problem("", "a preview without `tool` or `dry_run`", hint);
            }
            return None;
        }
    };
    Some(Preview { by, drift })
}

fn load_probe(section: &Section<'_>) -> Option<Probe> {
    let tool = section.string("tool");
    if tool.is_none() && !section.has("tool") {
        section.problem("", "a probe without `tool`", "name a read-only tool of the same server");
    }
    let args = load_template(section, "args").unwrap_or_else(no_arguments);
    let happened = section.section("happened").and_then(|section| {
        let at = load_pointer(&section, "at");
        let equals = section.value("equals");
        if equals.is_none() && !section.has("equals") {
            section.problem(
                "",
                "`happened` without `equals`",
                "write e.g. { at = \"/found\", equals = true }",
            );
        }
        section.finish();
        Some(Happened { at: at?, equals: equals? })
    });
    if happened.is_none() && !section.has("happened") {
        let hint = "write what its result says when the call happened: happened = { at = \"/found\", equals = true }";
        section.problem("", "a probe without `happened`", hint);
    }
    let absent = section.one_of("absent", &[("hold", Absent::Hold), ("resend", Absent::Resend)]);
    let settle_ms = positive_ms(section, "settle").unwrap_or_else(default_settle_ms);
    let answer = load_template(section, "answer");
    section.finish();
    Some(Probe {
        tool: tool?,
        args,
        happened: happened?,
        absent: absent.unwrap_or_default(),
        settle_ms,
        answer,
    })
}

/// Without `args` a companion gets no arguments: the call's own ones may mean something else to it.
fn no_arguments() -> Template {
    Template::parse(Value::Object(Map::new())).expect("invariant: an empty object is a template")
}

fn load_template(section: &Section<'_>, key: &str) -> Option<Template> {
    match Template::parse(section.value(key)?) {
        Ok(template) => Some(template),
        Err(bad) => {
            section.problem(key, format!("`{key}` is no template: {bad}"), "placeholders look like {/from}");
            None
        }
    }
}

/// A pointer that must be there.
pub(super) fn load_pointer(section: &Section<'_>, key: &str) -> Option<Pointer> {
    let Some(text) = section.string(key) else {
        if !section.has(key) {
            section.problem("", format!("`{key}` is missing"), format!("write {key} = \"/pointer\""));
        }
        return None;
    };
    match Pointer::parse(&text) {
        Ok(pointer) => Some(pointer),
        Err(bad) => {
            section.problem(key, format!("`{key}` is {bad}"), "write e.g. \"/amount\" or \"/order/items/0\"");
            None
        }
    }
}

fn load_pointers(section: &Section<'_>, key: &str) -> Vec<Pointer> {
    let texts = section.strings(key).unwrap_or_default();
    let pointers = texts.iter().enumerate().filter_map(|(index, text)| match Pointer::parse(text) {
        Ok(pointer) => Some(pointer),
        Err(bad) => {
            section.problem_in(key, index, bad.to_string(), "write e.g. \"/balance_after\"");
            None
        }
    });
    pointers.collect()
}
