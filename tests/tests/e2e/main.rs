//! Stories end to end: the real binaries, through the doors that users have.

mod api_fuzz;
mod bad_input;
mod bridge;
mod browser;
mod calls;
mod chaos;
mod cli;
mod clients;
mod crash;
mod doubt;
mod gates;
mod holds;
mod inbox;
mod keys;
mod leaving;
mod limits;
mod network;
mod notify;
mod patience;
mod questions;
mod reissues;
mod remember;
mod servers;
mod surfaces;
mod tour;
mod trust;
