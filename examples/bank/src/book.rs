//! What the ledger says: accounts, transfers and the rules of this bank. Pure, no file and no clock.
//!
//! Amounts and balances are whole units of one currency in an `i64`: exact, and nothing to round.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Every other account opens at 0. The mint never runs dry in a benchmark or a long crash test.
const OPENING: [(&str, i64); 3] = [("alice", 1000), ("bob", 1000), ("mint", 1_000_000_000_000)];

/// A transfer that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) amount: i64,
    pub(crate) reference: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// A transfer that was made; one line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Position in the ledger, from 1, over all lines.
    pub(crate) n: u64,
    /// `t-` and the position.
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) amount: i64,
    pub(crate) reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<String>,
    /// UTC, RFC 3339.
    pub(crate) at: String,
}

/// An account that was closed; one line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Closure {
    pub(crate) n: u64,
    /// `c-` and the position.
    pub(crate) id: String,
    pub(crate) closed: String,
    pub(crate) at: String,
}

/// One line of the ledger.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Transfer(Transfer),
    Closure(Closure),
}

impl Line {
    /// Told apart by hand: an untagged `Deserialize` would lose the integers under `arbitrary_precision`.
    pub(crate) fn parse(text: &[u8]) -> Result<Line, String> {
        let value: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let line = if value.get("closed").is_some() {
            serde_json::from_value(value).map(Line::Closure)
        } else {
            serde_json::from_value(value).map(Line::Transfer)
        };
        line.map_err(|e| e.to_string())
    }
}

/// A transfer together with what it left to its payer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Receipt {
    #[serde(flatten)]
    pub(crate) transfer: Transfer,
    pub(crate) balance_after: i64,
}

/// What a transfer would do to its payer.
#[derive(Debug, PartialEq)]
pub(crate) struct Quote {
    pub(crate) balance_before: i64,
    pub(crate) balance_after: i64,
}

/// Why the bank declines, in words for the caller. Nothing was written.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal(pub(crate) String);

/// The fold of all lines.
#[derive(Debug, Default)]
pub(crate) struct Book {
    lines: u64,
    receipts: Vec<Receipt>,
    balances: HashMap<String, i64>,
    closed: HashSet<String>,
    by_key: HashMap<String, usize>,
    by_reference: HashMap<String, Vec<usize>>,
}

impl Book {
    /// The number that the next line gets.
    pub(crate) fn next_n(&self) -> u64 {
        self.lines + 1
    }

    pub(crate) fn balance(&self, account: &str) -> i64 {
        self.balances.get(account).copied().unwrap_or_else(|| opening(account))
    }

    /// Oldest first.
    pub(crate) fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    /// Every transfer made under this reference, oldest first.
    pub(crate) fn with_reference(&self, reference: &str) -> impl DoubleEndedIterator<Item = &Receipt> {
        self.by_reference.get(reference).into_iter().flatten().map(|&i| &self.receipts[i])
    }

    /// What the order would do, if the bank accepts it.
    pub(crate) fn quote(&self, order: &Order) -> Result<Quote, Refusal> {
        let Order { from, to, amount, .. } = order;
        for account in [from, to] {
            self.check_usable(account)?;
        }
        if from == to {
            return refuse(format!("both accounts are {from}; a transfer needs two"));
        }
        if *amount <= 0 {
            return refuse(format!("the amount must be above zero, and is {amount}"));
        }
        let balance_before = self.balance(from);
        if balance_before < *amount {
            return refuse(format!(
                "insufficient funds: {from} has {balance_before}, the transfer needs {amount}"
            ));
        }
        if self.balance(to).checked_add(*amount).is_none() {
            return refuse(format!("{to} cannot hold that much"));
        }
        Ok(Quote { balance_before, balance_after: balance_before - amount })
    }

    /// The receipt of an earlier order with the same idempotency key, if there is one.
    pub(crate) fn earlier(&self, order: &Order) -> Result<Option<&Receipt>, Refusal> {
        let Some(&i) = order.idempotency_key.as_ref().and_then(|key| self.by_key.get(key)) else {
            return Ok(None);
        };
        let made = &self.receipts[i].transfer;
        let same = made.from == order.from
            && made.to == order.to
            && made.amount == order.amount
            && made.reference == order.reference;
        if same {
            Ok(Some(&self.receipts[i]))
        } else {
            refuse(format!("this idempotency key belongs to another transfer, {}", made.id))
        }
    }

    /// Whether the account may be closed: it must be open and empty.
    pub(crate) fn check_closable(&self, account: &str) -> Result<(), Refusal> {
        self.check_usable(account)?;
        match self.balance(account) {
            0 => Ok(()),
            left => refuse(format!("{account} still holds {left}; move it away first")),
        }
    }

    /// Takes a line over; the error says why such a line cannot be.
    pub(crate) fn fold(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Transfer(transfer) => self.fold_transfer(transfer)?,
            Line::Closure(closure) => {
                self.closed.insert(closure.closed);
            }
        }
        self.lines += 1;
        Ok(())
    }

    fn fold_transfer(&mut self, transfer: Transfer) -> Result<(), String> {
        let overflow = || format!("{} overflows a balance", transfer.id);
        let balance_after = self.balance(&transfer.from).checked_sub(transfer.amount).ok_or_else(overflow)?;
        let received = self.balance(&transfer.to).checked_add(transfer.amount).ok_or_else(overflow)?;
        self.balances.insert(transfer.from.clone(), balance_after);
        self.balances.insert(transfer.to.clone(), received);
        let i = self.receipts.len();
        if let Some(key) = &transfer.idempotency_key {
            self.by_key.entry(key.clone()).or_insert(i);
        }
        if let Some(reference) = &transfer.reference {
            self.by_reference.entry(reference.clone()).or_default().push(i);
        }
        self.receipts.push(Receipt { transfer, balance_after });
        Ok(())
    }

    fn check_usable(&self, account: &str) -> Result<(), Refusal> {
        if account.is_empty() {
            return refuse("an account needs a name".to_owned());
        }
        if self.closed.contains(account) {
            return refuse(format!("{account} is closed"));
        }
        Ok(())
    }
}

fn opening(account: &str) -> i64 {
    OPENING.iter().find(|(name, _)| *name == account).map_or(0, |(_, balance)| *balance)
}

fn refuse<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(from: &str, to: &str, amount: i64) -> Order {
        let reference = Some("INV-1".to_owned());
        Order { from: from.into(), to: to.into(), amount, reference, idempotency_key: Some("k".into()) }
    }

    fn made(book: &mut Book, order: &Order) {
        let n = book.next_n();
        let Order { from, to, amount, reference, idempotency_key } = order.clone();
        let (id, at) = (format!("t-{n}"), String::new());
        book.fold(Line::Transfer(Transfer { n, id, from, to, amount, reference, idempotency_key, at }))
            .expect("small amounts do not overflow");
    }

    #[test]
    fn refusals_say_why() {
        let mut book = Book::default();
        let closure = Closure { n: 1, id: "c-1".into(), closed: "mallory".into(), at: String::new() };
        book.fold(Line::Closure(closure)).expect("a closure always folds");
        for (order, expected) in [
            (order("alice", "alice", 5), "both accounts are alice; a transfer needs two"),
            (order("alice", "bob", 0), "the amount must be above zero, and is 0"),
            (order("alice", "bob", -5), "the amount must be above zero, and is -5"),
            (order("alice", "bob", 1001), "insufficient funds: alice has 1000, the transfer needs 1001"),
            (order("shop", "bob", 1), "insufficient funds: shop has 0, the transfer needs 1"),
            (order("alice", "mallory", 5), "mallory is closed"),
            (order("", "bob", 5), "an account needs a name"),
        ] {
            assert_eq!(book.quote(&order), Err(Refusal(expected.to_owned())));
        }
        let expected = Quote { balance_before: 1000, balance_after: 0 };
        assert_eq!(book.quote(&order("alice", "bob", 1000)), Ok(expected));
    }

    #[test]
    fn a_key_gives_the_first_receipt_back() {
        let mut book = Book::default();
        let first = order("alice", "shop", 40);
        assert!(book.earlier(&first).expect("an unknown key is fine").is_none());
        made(&mut book, &first);
        made(&mut book, &Order { idempotency_key: None, ..first.clone() });
        let receipt = book.earlier(&first).expect("same parameters").expect("known key");
        assert_eq!((receipt.transfer.id.as_str(), receipt.balance_after), ("t-1", 960));
        assert!(book.earlier(&Order { amount: 41, ..first }).is_err());
        assert_eq!(book.with_reference("INV-1").count(), 2);
    }

    #[test]
    fn lines_survive_writing_and_reading() {
        let text =
            br#"{"n":1,"id":"t-1","from":"a","to":"b","amount":9007199254740993,"reference":null,"at":"x"}"#;
        let line = Line::parse(text).expect("a well-formed line");
        assert_eq!(serde_json::to_vec(&line).expect("lines serialise"), text);
        assert!(Line::parse(br#"{"n":1,"id":"t-1","from":"a"#).is_err());
        assert!(Line::parse(br#"{"n":1,"id":"t-1","from":"a","to":"b","amount":1.5,"at":"x"}"#).is_err());
    }
}
