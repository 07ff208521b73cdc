//! Stories end to end: the real binaries, through the doors that users have.

#![allow(clippy::print_stdout, reason = "what a long story tells on its way is shown where it fails")]

mod add;
mod api_fuzz;
mod asked;
mod bad_input;
mod beside;
mod bridge;
mod browser;
mod calls;
mod chaos;
mod cli;
mod clients;
mod conformance;
mod crash;
mod doctor;
mod doubt;
mod gates;
mod holds;
mod import;
mod inbox;
mod init;
mod kept;
mod keys;
mod large;
mod leaving;
mod limits;
mod matrix;
mod names;
mod network;
mod notify;
mod patience;
mod questions;
mod reissues;
mod reload;
mod remember;
mod resumed;
mod servers;
mod sessions;
mod sign_in;
mod streams;
mod surfaces;
mod tour;
mod trust;
mod trusted_proxy;
mod unwell;
