//! The engine told as stories: what happens to a call, and the facts and effects that follow.
//!
//! A story is compared with one line: steps are separated by `; `, facts come before ` -> `, effects after it, `-` is a
//! step without either, and ` = ` introduces the state at the end, with `(keys free)` where they went back.

mod advance;
mod holds;
mod questions;
mod races;
mod sending;
mod settling;
mod story;
mod votes;
