//! `requestState`: which held call a retry goes on with, sealed so that nobody can make one, change one or lend one.
//!
//! The client carries it (MCP 2026-07-28, "Multi Round-Trip Requests"), so it is whatever an attacker wants it to be
//! until its HMAC-SHA256 was checked. That covers the format's version, the call, the principal, the expiry and how far
//! the rounds are. It is not used up: a retry whose answer was lost comes again with the same state and rejoins the same
//! call. Nothing is decided by it; it only says what is waited for.

use hmac::{Hmac, KeyInit, Mac};
use holdfast_store::{CallId, Millis};
use sha2::Sha256;

/// The format. A state of another one is as unknown as one of another server.
const PREFIX: &str = "hf2.";
/// What the HMAC is computed for, so that no other use of the key could ever give the same.
const PURPOSE: &[u8] = b"holdfast/request-state/1";
const TAG: usize = 32;
const BODY: usize = 16 + 8 + 2 + 8;

/// A wait that goes on in the client's next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// What is waited for.
    pub(super) call: CallId,
    /// How often the client was asked to come again.
    pub(super) rounds: u8,
    /// What the client was asked for.
    pub(super) asked: AskedFor,
}

/// What the client was asked for besides coming again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedFor {
    /// Nothing.
    Nothing,
    /// To send its user to the inbox.
    Visit,
    /// What the server of the call wants to know: the number of its question.
    Input(u64),
}

/// Why a state is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealed {
    /// Not one that this Holdfast gave to this principal.
    Forged,
    /// It was, but its time is over.
    Expired,
}

/// The key of all states of one journal.
pub(super) struct Seal {
    mac: Hmac<Sha256>,
}

impl Seal {
    /// The seal with this key.
    pub(super) fn new(key: &[u8]) -> Self {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        Self { mac }
    }

    /// The state to be given to `principal`, good until `expires`.
    pub(super) fn seal(&self, principal: &str, pending: &Pending, expires: Millis) -> String {
        let mut bytes = Vec::with_capacity(BODY + TAG);
        bytes.extend_from_slice(&pending.call.bytes());
        bytes.extend_from_slice(&expires.0.to_be_bytes());
        bytes.push(pending.rounds);
        let (kind, question) = match pending.asked {
            AskedFor::Nothing => (0, 0),
            AskedFor::Visit => (1, 0),
            AskedFor::Input(question) => (2, question),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&question.to_be_bytes());
        let tag = self.over(principal, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        let mut text = String::with_capacity(PREFIX.len() + 2 * bytes.len());
        text.push_str(PREFIX);
        for byte in bytes {
            for digit in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
            }
        }
        text
    }

    /// Reads a state that `principal` sent.
    ///
    /// # Errors
    /// See [`Unsealed`].
    pub(super) fn open(&self, principal: &str, now: Millis, text: &str) -> Result<Pending, Unsealed> {
        let bytes = text.strip_prefix(PREFIX).and_then(from_hex).ok_or(Unsealed::Forged)?;
        let (body, tag) = bytes.split_at(BODY);
        // In constant time; nothing of the body is believed before it.
        self.over(principal, body).verify_slice(tag).map_err(|_| Unsealed::Forged)?;
        let (call, rest) = body.split_first_chunk::<16>().expect("the length is fixed");
        let (expires, rest) = rest.split_first_chunk::<8>().expect("the length is fixed");
        if Millis(u64::from_be_bytes(*expires)) < now {
            return Err(Unsealed::Expired);
        }
        let ([rounds, kind], question) = rest.split_first_chunk::<2>().expect("the length is fixed");
        let question = question.first_chunk::<8>().expect("the length is fixed");
        let asked = match kind {
            0 => AskedFor::Nothing,
            1 => AskedFor::Visit,
            2 => AskedFor::Input(u64::from_be_bytes(*question)),
            _ => return Err(Unsealed::Forged),
        };
        Ok(Pending { call: CallId::from_bytes(*call), rounds: *rounds, asked })
    }

    /// What shows that `principal` was told of this task of a server: 24 hex digits.
    pub(super) fn of_task(&self, principal: &str, server: &str, task: &str) -> String {
        let mut mac = self.mac.clone();
        for part in ["task", principal, server, task] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The HMAC over a state of `principal`. The body's length is fixed, so nothing can move between the two.
    fn over(&self, principal: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(body);
        mac.update(principal.as_bytes());
        mac
    }
}

/// Exactly the bytes of one state. Upper case is refused, so that one state has one spelling.
fn from_hex(text: &str) -> Option<[u8; BODY + TAG]> {
    let mut bytes = [0; BODY + TAG];
    let digits = text.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);
    const LATER: Millis = Millis(NOW.0 + 1_000);

    fn pending() -> Pending {
        Pending { call: CallId::from_bytes([7; 16]), rounds: 3, asked: AskedFor::Visit }
    }

    #[test]
    fn what_was_sealed_is_what_opens() {
        let seal = Seal::new(b"key");
        let state = seal.seal("ana", &pending(), LATER);
        assert_eq!(seal.open("ana", NOW, &state), Ok(pending()));
        // As often as one likes, and after a restart: the key is kept.
        assert_eq!(Seal::new(b"key").open("ana", LATER, &state), Ok(pending()));
        let input = Pending { asked: AskedFor::Input(u64::MAX - 1), ..pending() };
        assert_eq!(seal.open("ana", NOW, &seal.seal("ana", &input, LATER)), Ok(input));
        let nothing = Pending { asked: AskedFor::Nothing, rounds: u8::MAX, ..pending() };
        assert_eq!(seal.open("", NOW, &seal.seal("", &nothing, LATER)), Ok(nothing));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let seal = Seal::new(b"key");
        let state = seal.seal("ana", &pending(), LATER);
        for at in 0..state.len() {
            for bit in 0..8 {
                let mut bytes = state.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                assert_eq!(seal.open("ana", NOW, &text), Err(Unsealed::Forged), "{text}");
            }
        }
    }

    #[test]
    fn nothing_else_opens() {
        let seal = Seal::new(b"key");
        let state = seal.seal("ana", &pending(), LATER);
        let hex = &state[PREFIX.len()..];
        let other_tag = &seal.seal("bob", &pending(), LATER)[PREFIX.len() + 2 * BODY..];
        let corpus = [
            String::new(),
            PREFIX.to_owned(),
            hex.to_owned(),
            state.to_uppercase(),
            state.replacen("hf2.", "hf1.", 1),
            format!("{PREFIX}{}", hex.to_uppercase()),
            format!("{state}00"),
            format!("{state} "),
            format!(" {state}"),
            format!("{state}\0"),
            state[..state.len() - 2].to_owned(),
            // Body of one, tag of another.
            format!("{PREFIX}{}{other_tag}", &hex[..2 * BODY]),
            format!("{PREFIX}{}", "0".repeat(2 * (BODY + TAG))),
            format!("{PREFIX}{}", "ü".repeat(BODY + TAG)),
            Seal::new(b"other key").seal("ana", &pending(), LATER),
            "{}".to_owned(),
            "x".repeat(1_000_000),
        ];
        for text in corpus {
            let shown: String = text.chars().take(80).collect();
            assert_eq!(seal.open("ana", NOW, &text), Err(Unsealed::Forged), "{shown:?}");
        }
    }

    #[test]
    fn it_is_its_principals_alone_and_ends() {
        let seal = Seal::new(b"key");
        let state = seal.seal("ana", &pending(), LATER);
        for other in ["bob", "", "an", "ana ", "Ana"] {
            assert_eq!(seal.open(other, NOW, &state), Err(Unsealed::Forged), "{other:?}");
        }
        assert_eq!(seal.open("ana", Millis(LATER.0 + 1), &state), Err(Unsealed::Expired));
        // What is not ours is never told from what is only too old.
        assert_eq!(seal.open("bob", Millis(LATER.0 + 1), &state), Err(Unsealed::Forged));
    }
}
