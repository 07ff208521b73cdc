//! The tools: what they are called, what they take, and what they answer.
//!
//! Every answer has `structuredContent` and one text block that says the same in a sentence or a table.
//! Arguments that do not fit are tool errors, so that a model can read what to mend.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rmcp::model::{CallToolResult, ContentBlock, ErrorData, JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, json};

use crate::book::{Order, Receipt, Refusal, Transfer};
use crate::clock;
use crate::ledger::{Durability, Ledger, LedgerError};

/// Serves the tools over one ledger.
pub(crate) struct Teller {
    ledger: Mutex<Ledger>,
    durability: Durability,
}

/// A successful answer.
struct Reply {
    text: String,
    data: Value,
}

/// Every other end of a call.
enum Trouble {
    /// A tool error: nothing was written.
    Declined(String),
    /// -32602.
    NoSuchTool(String),
    /// -32603: something may have been written.
    InDoubt(String),
}

/// The definitions, in the order in which they are listed.
pub(crate) fn tools() -> Vec<Tool> {
    let hints = ToolAnnotations::new().open_world(false);
    let reads = hints.clone().read_only(true);
    let destroys = hints.read_only(false).destructive(true).idempotent(false);
    let tool = |name: &'static str, title: &str, description: &'static str, annotations: &ToolAnnotations| {
        Tool::new(name, description, JsonObject::new())
            .with_title(title)
            .with_annotations(annotations.clone())
    };
    vec![
        tool("balance", "Balance", "What an account holds. Unknown accounts hold 0.", &reads)
            .with_input_schema::<BalanceArgs>(),
        tool("close_account", "Close an account", "Closes an empty account for good.", &destroys)
            .with_input_schema::<CloseArgs>(),
        tool("echo", "Echo", "Returns the message unchanged.", &reads).with_input_schema::<EchoArgs>(),
        tool("find_transfer", "Find a transfer", "Whether a transfer with this reference was made.", &reads)
            .with_input_schema::<FindArgs>(),
        tool("list_transfers", "List transfers", "Transfers, newest first.", &reads)
            .with_input_schema::<ListArgs>(),
        tool("quote_transfer", "Quote a transfer", "What a transfer would do, without making it.", &reads)
            .with_input_schema::<QuoteArgs>(),
        tool(
            "transfer",
            "Transfer",
            "Moves money, and does so again each time it is called. With an `idempotency_key` that was used \
             before, and the same other arguments, it returns the earlier result and moves nothing.",
            &destroys,
        )
        .with_input_schema::<TransferArgs>(),
    ]
}

impl Teller {
    pub(crate) fn new(ledger: Ledger) -> Teller {
        let durability = ledger.durability();
        Teller { ledger: Mutex::new(ledger), durability }
    }

    /// Does what the tool does. Blocks while a line is synced, but only on a multi-threaded runtime.
    pub(crate) fn call(&self, tool: &str, arguments: JsonObject) -> Result<CallToolResult, ErrorData> {
        match self.reply(tool, arguments) {
            Ok(Reply { text, data }) => {
                let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
                result.structured_content = Some(data);
                Ok(result)
            }
            Err(Trouble::Declined(why)) => Ok(CallToolResult::error(vec![ContentBlock::text(why)])),
            Err(Trouble::NoSuchTool(name)) => {
                Err(ErrorData::invalid_params(format!("unknown tool `{name}`"), None))
            }
            Err(Trouble::InDoubt(why)) => Err(ErrorData::internal_error(why, None)),
        }
    }

    fn reply(&self, tool: &str, arguments: JsonObject) -> Result<Reply, Trouble> {
        match tool {
            "balance" => self.balance(parse(arguments)?),
            "close_account" => self.close_account(parse(arguments)?),
            "echo" => Ok(echo(parse(arguments)?)),
            "find_transfer" => self.find_transfer(parse(arguments)?),
            "list_transfers" => self.list_transfers(parse(arguments)?),
            "quote_transfer" => self.quote_transfer(parse(arguments)?),
            "transfer" => self.transfer(parse(arguments)?),
            other => Err(Trouble::NoSuchTool(other.to_owned())),
        }
    }

    fn balance(&self, BalanceArgs { account }: BalanceArgs) -> Result<Reply, Trouble> {
        let balance = self.ledger().book()?.balance(&account);
        Ok(Reply {
            text: format!("{account} has {balance}."),
            data: json!({ "account": account, "balance": balance }),
        })
    }

    fn close_account(&self, CloseArgs { account }: CloseArgs) -> Result<Reply, Trouble> {
        let closure = self.writing(|ledger| ledger.close(&account, clock::now()))??;
        Ok(Reply {
            text: format!("{account} is closed ({}).", closure.id),
            data: json!({ "account": account, "closed": true, "id": closure.id, "at": closure.at }),
        })
    }

    fn find_transfer(&self, FindArgs { reference }: FindArgs) -> Result<Reply, Trouble> {
        let mut ledger = self.ledger();
        let mut found = ledger.book()?.with_reference(&reference);
        let Some(Receipt { transfer: first, .. }) = found.next() else {
            return Ok(Reply {
                text: format!("No transfer has the reference {reference}."),
                data: json!({ "found": false, "times": 0 }),
            });
        };
        let times = 1 + found.count();
        let often = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        Ok(Reply {
            text: format!("{reference} was made {often}; first as {}.", in_words(first)),
            data: json!({ "found": true, "times": times, "transfer": first }),
        })
    }

    fn list_transfers(&self, ListArgs { account, limit }: ListArgs) -> Result<Reply, Trouble> {
        let concerns = |transfer: &Transfer| {
            account.as_ref().is_none_or(|account| transfer.from == *account || transfer.to == *account)
        };
        let mut ledger = self.ledger();
        let all = ledger.book()?.receipts().iter().rev().map(|receipt| &receipt.transfer);
        let listed: Vec<&Transfer> = all.filter(|t| concerns(t)).take(limit as usize).collect();
        let lines: Vec<String> = listed.iter().map(|transfer| in_words(transfer)).collect();
        let text = if lines.is_empty() { "No transfers.".to_owned() } else { lines.join("\n") };
        Ok(Reply { text, data: json!({ "transfers": listed }) })
    }

    fn quote_transfer(&self, QuoteArgs { from, to, amount }: QuoteArgs) -> Result<Reply, Trouble> {
        let order = Order { from, to, amount, reference: None, idempotency_key: None };
        let quote = self.ledger().book()?.quote(&order)?;
        let Order { from, to, .. } = order;
        let (before, after) = (quote.balance_before, quote.balance_after);
        Ok(Reply {
            text: format!("{amount} from {from} to {to}, no fee: {from} would go from {before} to {after}."),
            data: json!({
                "from": from, "to": to, "amount": amount, "fee": 0,
                "balance_before": before, "balance_after": after,
            }),
        })
    }

    fn transfer(&self, args: TransferArgs) -> Result<Reply, Trouble> {
        let TransferArgs { from, to, amount, reference, idempotency_key } = args;
        let order = Order { from, to, amount, reference, idempotency_key };
        let receipt = self.writing(|ledger| ledger.transfer(order, clock::now()))??;
        let (Receipt { transfer, balance_after }, left_to) = (&receipt, &receipt.transfer.from);
        Ok(Reply {
            text: format!("Made {}. {left_to} has {balance_after} left.", in_words(transfer)),
            data: serde_json::to_value(&receipt).expect("strings and integers serialise"),
        })
    }

    fn writing<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        match self.durability {
            // A sync takes milliseconds: the runtime's other tasks must not wait for it.
            Durability::Synced => tokio::task::block_in_place(|| act(&mut self.ledger())),
            Durability::Unsynced => act(&mut self.ledger()),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The file is the truth and is read on from the last whole line, so a panic leaves nothing half done.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Refusal> for Trouble {
    fn from(Refusal(why): Refusal) -> Trouble {
        Trouble::Declined(why)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Trouble {
        match error {
            LedgerError::Unusable(why) => Trouble::Declined(format!("nothing was written: {why}")),
            LedgerError::InDoubt(why) => Trouble::InDoubt(why),
        }
    }
}

fn echo(EchoArgs { message }: EchoArgs) -> Reply {
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
    Reply { text, data: json!({ "message": message }) }
}

fn in_words(transfer: &Transfer) -> String {
    let Transfer { id, from, to, amount, reference, .. } = transfer;
    let reference = reference.as_ref().map(|r| format!(", reference {r}")).unwrap_or_default();
    format!("{id}: {amount} from {from} to {to}{reference}")
}

fn parse<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, Trouble> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|e| Trouble::Declined(format!("the arguments do not fit: {e}")))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BalanceArgs {
    /// The account's name, e.g. alice.
    account: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CloseArgs {
    /// The account's name; it must hold 0.
    account: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EchoArgs {
    /// Any JSON value.
    message: Value,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FindArgs {
    /// The reference that the transfer was made with.
    reference: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListArgs {
    /// Only transfers from or to this account.
    account: Option<String>,
    /// At most this many.
    #[serde(default = "default_limit")]
    limit: u32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuoteArgs {
    /// The account that pays.
    from: String,
    /// The account that receives.
    to: String,
    /// Whole units, above zero.
    #[serde(deserialize_with = "whole_units")]
    #[schemars(range(min = 1))]
    amount: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TransferArgs {
    /// The account that pays.
    from: String,
    /// The account that receives.
    to: String,
    /// Whole units, above zero.
    #[serde(deserialize_with = "whole_units")]
    #[schemars(range(min = 1))]
    amount: i64,
    /// What the transfer is for, e.g. an invoice number. The bank does not insist that it is unique.
    reference: Option<String>,
    /// Makes repeating this call harmless.
    idempotency_key: Option<String>,
}

fn default_limit() -> u32 {
    100
}

fn whole_units<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    number
        .as_i64()
        .ok_or_else(|| D::Error::custom(format!("the amount must be whole units, and is {number}")))
}
