//! A world of its own for each story: a directory, the real binaries in it, and clients that hide nothing.
//!
//! | module | holds |
//! |---|---|
//! | `world` | the directory, its configuration, what was really paid |
//! | `binaries` | where the programs under test are |
//! | `process` | programs that end with their story, whatever happens |
//! | `http` | HTTP/1.1 by hand, because connections are what many stories are about |
//! | `agent` | an agent over HTTP, in both eras of the protocol |
//! | `client` | a client that can do all of MCP, on either way, in either era |
//! | `bridge` | an agent over standard input and output |
//! | `answer` | what an agent was told |
//! | `authority` | a server that wants OAuth |
//! | `desk` | an operator at the JSON API |
//! | `receiver` | somebody who is notified |
//! | `browser` | an operator at the page, in a real Chromium |
//!
//! Nothing here links the product: it is judged by what its programs do.

mod agent;
mod answer;
mod authority;
mod binaries;
mod bridge;
mod browser;
mod client;
mod desk;
mod http;
mod patience;
mod process;
mod receiver;
mod world;

pub use agent::{Agent, Asked, Era};
pub use answer::{Answer, call_in};
pub use authority::Authority;
pub use binaries::{bank, everything, from_setup, holdfast, journal_load, odd, target};
pub use bridge::Bridge;
pub use browser::{Browser, Look};
pub use client::{Client, Exchange, Place, Speaks, member, members};
pub use desk::Desk;
pub use http::{Connection, Head, Response};
pub use patience::{PATIENCE, eventually, eventually_some};
pub use process::{HttpServer, Ran, Running, Served, end_process};
pub use receiver::{Delivery, Receiver};
pub use world::{ALLOW, World, payment, payment_of};
