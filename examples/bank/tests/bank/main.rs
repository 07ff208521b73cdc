//! Drives the real binary with raw JSON-RPC, and reads its ledger afterwards.

mod faults;
mod harness;
mod http;
mod ledger;
mod tools;
