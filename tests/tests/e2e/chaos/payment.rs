//! What is paid in the chaos, under which promise, and what was heard of it.

use holdfast_tests::{Answer, World};
use serde_json::{Value, json};

/// How a payment is told from others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Naming {
    /// By a key that the agent gives.
    Explicit,
    /// By a key that policy makes of its arguments.
    Effect,
    /// By nothing: asked again, it is found as the call whose answer was lost.
    Nothing,
}

/// What policy promises about a lost answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Promise {
    /// Never sent twice; the outcome may stay unknown.
    Never,
    /// The same, but the bank is asked whether it happened.
    Probed,
    /// Sent again under a key by which the bank knows it.
    Keyed,
}

/// One payment, with a reference that no other has.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) reference: String,
    pub(super) naming: Naming,
    pub(super) promise: Promise,
}

/// The end of a payment, as its agent was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// It was made.
    Paid {
        /// The call.
        call: String,
        /// The line of the ledger.
        id: String,
        /// `content` and `structuredContent`.
        result: [Value; 2],
    },
    /// Nobody knows.
    Unknown {
        /// The call.
        call: String,
    },
}

/// In front of a bank that may die at any time; the rules tell payments apart by their references.
pub(super) fn configure(world: &World, address: [&str; 2]) {
    configure_before(world, &world.server_bank(), address);
}

/// The same in front of this bank.
pub(super) fn configure_before(world: &World, bank: &str, address: [&str; 2]) {
    let [mcp, inbox] = address;
    world.write(
        "holdfast.toml",
        &format!(
            r#"version = 1
listen = {{ mcp = "{mcp}", inbox = "{inbox}" }}
{bank}breaker = {{ failures = 10000 }}
[defaults]
effect = "allow"
attempt_timeout = "15s"
retry = {{ attempts = 1000, initial = "10ms", factor = 1.5, cap = "100ms" }}
limits = {{ concurrency = 64 }}
[[rule]]
id = "effect-and-keyed"
tool = "transfer"
when = [{{ arg = "/reference", op = "prefix", value = "effect-keyed-" }}]
repeat = "keyed"
idempotency = {{ key = "transfer:{{/reference}}", upstream = "arg:/idempotency_key" }}
[[rule]]
id = "keyed"
tool = "transfer"
when = [{{ arg = "/reference", op = "glob", value = "*-keyed-*" }}]
repeat = "keyed"
idempotency = {{ upstream = "arg:/idempotency_key" }}
[[rule]]
id = "effect"
tool = "transfer"
when = [{{ arg = "/reference", op = "prefix", value = "effect-" }}]
idempotency = {{ key = "transfer:{{/reference}}" }}
[[rule]]
id = "probed"
tool = "transfer"
when = [{{ arg = "/reference", op = "glob", value = "*-probed-*" }}]
probe = {{ tool = "find_transfer", args = {{ reference = "{{/reference}}" }}, happened = {{ at = "/found", equals = true }} }}
"#
        ),
    );
}

impl Payment {
    /// The n-th payment of an agent; each agent gets through all kinds.
    pub(super) fn nth(who: usize, n: usize) -> Payment {
        let naming = [Naming::Explicit, Naming::Effect, Naming::Nothing][(who + n) % 3];
        let promise = [Promise::Never, Promise::Probed, Promise::Keyed][(who + n / 3) % 3];
        let reference = format!("{naming:?}-{promise:?}-{who}-{n}").to_lowercase();
        Payment { reference, naming, promise }
    }

    /// Whether it is one of this agent's.
    pub(super) fn is_of(&self, who: usize) -> bool {
        self.reference.split('-').nth(2).is_some_and(|part| part == who.to_string())
    }

    /// The params of `tools/call`, without what the era adds.
    pub(super) fn params(&self) -> Value {
        let arguments = json!({ "from": "mint", "to": "shop", "amount": 1, "reference": self.reference });
        let mut params = json!({ "name": "bank__transfer", "arguments": arguments });
        if self.naming == Naming::Explicit {
            params["_meta"] = json!({ "io.holdfast/idempotency-key": self.reference });
        }
        params
    }

    /// What an answer says about it.
    ///
    /// # Panics
    /// Where it is neither of the two that an agent may be told, or about another payment.
    pub(super) fn heard(&self, answer: &Answer) -> Heard {
        let call = answer.call();
        if answer.code() == "outcome-unknown" {
            return Heard::Unknown { call };
        }
        assert!(answer.succeeded(), "{self:?}: {answer:?}");
        let (result, data) = (answer.result(), answer.data());
        // A probe's answer is about the transfer, and says how many there are.
        let transfer = if data["found"] == true { &data["transfer"] } else { data };
        assert!(data["times"].is_null() || data["times"] == 1, "{self:?} was made twice: {answer:?}");
        assert_eq!(transfer["reference"], self.reference, "{answer:?}");
        let id = transfer["id"].as_str().unwrap_or_else(|| panic!("no transfer: {answer:?}")).to_owned();
        Heard::Paid { call, id, result: [result["content"].clone(), data.clone()] }
    }
}
