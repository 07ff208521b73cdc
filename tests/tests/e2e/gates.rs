//! Calls that wait for a person, killed in every state they can be in: what is found again, told and done once.

mod clients;
mod crowd;
mod ended;
mod killed;
mod play;
mod races;
mod revisions;

/// Whoever decides in these stories.
const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\n\
    [operators.bob]\ntoken = \"token-of-bob-long-enough\"\n\
    [operators.root]\ntoken = \"token-of-root-long-enough\"\nrole = \"admin\"\n";
const ANA: &str = "token-of-ana-long-enough";
const BOB: &str = "token-of-bob-long-enough";
const ROOT: &str = "token-of-root-long-enough";

/// Everything is allowed; whoever is held is told so at once.
const HASTY: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n";
