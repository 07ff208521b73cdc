//! Who is signed in: sessions in memory, found by a cookie that scripts cannot read and other sites cannot send.
//!
//! A restart signs everybody out. Cookies do not tell ports apart, so each name carries the port of its inbox.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header};
use holdfast_store::{Decider, Hash32, hash_fields};

use super::super::proxied;
use crate::{
    address::random_token,
    config::{Operator, Role},
};

/// A session that nobody uses for this long has ended.
const IDLE: Duration = Duration::from_secs(12 * 3_600);
/// No session lasts longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Beyond this many the least used one ends.
const MOST: usize = 1_000;
/// Messages that a session keeps for the pages to come.
const FLASHES: usize = 20;

/// Somebody who is signed in, for handlers.
#[derive(Clone, Debug)]
pub(in super::super) struct Session {
    id: Hash32,
    /// As decisions record it.
    pub(super) by: Decider,
    /// What the operator may do.
    pub(super) role: Role,
    /// Whether the operator may approve past the gates.
    pub(super) break_glass: bool,
    /// What every form of this session carries.
    pub(super) csrf: String,
}

/// What came of a decision, for the page that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flash {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// Whether it is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
}

struct Kept {
    operator: String,
    csrf: String,
    begun: Instant,
    used: Instant,
    flashes: VecDeque<(String, Flash)>,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Hash32, Kept>>);

impl Sessions {
    /// Signs `operator` in, and gives the value of the cookie.
    pub(super) fn begin(&self, operator: &Operator) -> String {
        let cookie = random_token();
        let now = Instant::now();
        let mut all = self.lock();
        make_room(&mut all, now);
        all.insert(id_of(&cookie), Kept::of(operator, now));
        cookie
    }

    /// The session of somebody whom the trusted proxy names. It has no cookie, so it cannot outlive what the proxy says.
    pub(super) fn introduced(&self, operator: &Operator) -> Session {
        let id = hash_fields("holdfast/introduced", &[operator.name.as_bytes()]);
        let now = Instant::now();
        let mut all = self.lock();
        if !all.get(&id).is_some_and(|kept| kept.is_alive(now)) {
            make_room(&mut all, now);
            all.insert(id, Kept::of(operator, now));
        }
        let kept = all.get_mut(&id).expect("it was put there");
        kept.used = now;
        session(id, kept, operator, proxied::INBOX)
    }

    /// Whose the cookie in `headers` is, as the configuration has them now.
    pub(super) fn find(&self, operators: &[Operator], headers: &HeaderMap) -> Option<Session> {
        let id = id_of(&cookie(headers, &cookie_name(headers, "holdfast"))?);
        let now = Instant::now();
        let mut all = self.lock();
        let kept = all.get_mut(&id).filter(|kept| kept.is_alive(now))?;
        let operator = operators.iter().find(|operator| operator.name == kept.operator)?;
        kept.used = now;
        Some(session(id, kept, operator, "inbox"))
    }

    /// Whether the session has not ended. No use of it.
    pub(super) fn is_alive(&self, session: &Session) -> bool {
        self.lock().get(&session.id).is_some_and(|kept| kept.is_alive(Instant::now()))
    }

    /// Signs out everybody but those whom `stays` knows.
    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.lock().retain(|_, kept| stays(&kept.operator));
    }

    /// Signs out.
    pub(super) fn end(&self, session: &Session) {
        self.lock().remove(&session.id);
    }

    /// Keeps `flash` for the next page and gives its name. Showing it changes nothing, so that a GET need not.
    pub(super) fn keep(&self, session: &Session, flash: Flash) -> String {
        let name = random_token()[..16].to_owned();
        if let Some(kept) = self.lock().get_mut(&session.id) {
            kept.flashes.push_front((name.clone(), flash));
            kept.flashes.truncate(FLASHES);
        }
        name
    }

    /// What was kept under `name`.
    pub(super) fn flash(&self, session: &Session, name: &str) -> Option<Flash> {
        let all = self.lock();
        let kept = all.get(&session.id)?;
        kept.flashes.iter().find(|(known, _)| known == name).map(|(_, flash)| flash.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash32, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(all: &mut HashMap<Hash32, Kept>, now: Instant) {
    all.retain(|_, kept| kept.is_alive(now));
    if all.len() >= MOST
        && let Some(oldest) = all.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)
    {
        all.remove(&oldest);
    }
}

fn session(id: Hash32, kept: &Kept, operator: &Operator, via: &str) -> Session {
    let (name, groups) = (operator.name.clone(), operator.groups.clone());
    Session {
        id,
        by: Decider { name, groups, via: via.to_owned() },
        role: operator.role,
        break_glass: operator.break_glass,
        csrf: kept.csrf.clone(),
    }
}

impl Kept {
    fn of(operator: &Operator, now: Instant) -> Self {
        let operator = operator.name.clone();
        Self { operator, csrf: random_token(), begun: now, used: now, flashes: VecDeque::new() }
    }

    fn is_alive(&self, now: Instant) -> bool {
        now.duration_since(self.used) < IDLE && now.duration_since(self.begun) < LONGEST
    }
}

/// Only hashes are looked up: how long that takes says nothing about the cookie.
fn id_of(cookie: &str) -> Hash32 {
    hash_fields("holdfast/session", &[cookie.as_bytes()])
}

/// Whether the browser spoke https, to whatever stands before us. Where a proxy is configured, only it can say so.
fn is_https(headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    proto.is_some_and(|value| value.split(',').next().is_some_and(|first| first.trim() == "https"))
}

/// The cookie's whole name at the host and port that the browser named.
pub(super) fn cookie_name(headers: &HeaderMap, stem: &str) -> String {
    if is_https(headers) {
        return format!("__Host-{stem}");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
    if port.bytes().all(|byte| byte.is_ascii_digit()) { format!("{stem}-{port}") } else { stem.to_owned() }
}

/// The value of a cookie that came with the request.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
}

/// A `Set-Cookie` of the whole host; none of `value` takes the cookie away.
pub(super) fn set_cookie(headers: &HeaderMap, stem: &str, value: Option<&str>) -> HeaderValue {
    let name = cookie_name(headers, stem);
    let secure = if is_https(headers) { "; Secure" } else { "" };
    let age = if value.is_some() { LONGEST.as_secs() } else { 0 };
    let value = value.unwrap_or_default();
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}");
    HeaderValue::try_from(cookie).expect("names, ports and hexadecimal digits are header values")
}
