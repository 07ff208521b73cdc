//! Stories about answers that were or were not heard.

use super::*;

const WINDOW_MS: u64 = 600_000;

struct World {
    reissues: Reissues,
    now: Millis,
    next: u128,
    hung_up: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self { reissues: Reissues::default(), now: Millis(1_000_000), next: 1, hung_up: Vec::new() }
    }

    /// A request arrives; the answer says which earlier call it is taken as, or which new one it makes.
    fn request(&mut self, connection: u64, channel: &str) -> (CallId, bool) {
        let from = from(connection, channel);
        self.reissues.seen(self.now, &from, Evidence::Call);
        let hung_up = self.hung_up.clone();
        if let Some(call) = self.reissues.take(self.now, HASH, &from, &|number| hung_up.contains(&number)) {
            return (call, true);
        }
        let call = CallId(uuid::Uuid::from_u128(self.next));
        self.next += 1;
        let channel = channel.to_owned();
        let new = NewOrigin { hash: HASH, call, channel, window_ms: WINDOW_MS, gated: Gated::No };
        self.reissues.begun(new, connection);
        (call, false)
    }

    fn other_call(&mut self, connection: u64, channel: &str) {
        self.message(connection, channel, Evidence::Call);
    }

    fn message(&mut self, connection: u64, channel: &str, evidence: Evidence) {
        self.reissues.seen(self.now, &from(connection, channel), evidence);
    }

    fn settle(&mut self, call: CallId) {
        self.reissues.settled(self.now, HASH, call);
    }

    fn write(&mut self, call: CallId, connection: u64, channel: &str) {
        self.reissues.written(self.now, HASH, call, &from(connection, channel));
    }

    fn leave(&mut self, call: CallId, connection: u64) {
        self.reissues.left(HASH, call, connection);
        self.reissues.connection_gone(self.now, connection);
    }
}

const HASH: Hash32 = Hash32([7; 32]);

fn from(connection: u64, channel: &str) -> From {
    From { connection, channel: channel.into() }
}

#[test]
fn a_client_that_left_and_asks_again_is_answered_by_the_same_call() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    assert_eq!(world.request(2, "a"), (first, true), "still running");
    world.leave(first, 2);
    world.settle(first);
    assert_eq!(world.request(3, "a"), (first, true), "done, and nobody heard it");
}

#[test]
fn identical_parallel_requests_are_two_calls() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    let (second, taken) = world.request(2, "a");
    assert!(!taken);
    assert_ne!(first, second);
}

#[test]
fn a_later_request_on_the_same_connection_shows_that_the_answer_arrived() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    assert!(!world.request(1, "a").1, "deliberately the same again");
}

#[test]
fn a_written_answer_without_a_later_request_may_be_lost() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    assert_eq!(world.request(2, "a"), (first, true), "a new connection proves nothing");
}

#[test]
fn another_call_on_the_channel_shows_that_the_answer_arrived() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    world.now = world.now.plus(OUTLIVES_MS);
    world.other_call(2, "a");
    assert!(!world.request(3, "a").1);
}

#[test]
fn who_closed_the_connection_right_after_the_answer_may_not_have_read_it() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    world.reissues.connection_gone(world.now.plus(5), 1);
    world.now = world.now.plus(60_000);
    world.other_call(2, "a");
    assert_eq!(world.request(3, "a"), (first, true), "what others on the channel ask proves nothing");
}

#[test]
fn who_closed_an_idle_connection_has_read_the_answer() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    world.reissues.connection_gone(world.now.plus(5_000), 1);
    world.now = world.now.plus(60_000);
    world.other_call(2, "a");
    assert!(!world.request(3, "a").1);
}

#[test]
fn a_waiter_whose_other_end_hung_up_does_not_wait() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.hung_up.push(1);
    assert_eq!(world.request(2, "a"), (first, true), "nobody has noticed the end of connection 1 yet");
}

#[test]
fn what_clients_send_by_themselves_shows_that_they_live_and_no_more() {
    for evidence in [Evidence::Request, Evidence::Nothing] {
        let mut world = World::new();
        let (first, _) = world.request(1, "a");
        world.settle(first);
        world.write(first, 1, "a");
        world.now = world.now.plus(OUTLIVES_MS);
        world.message(2, "a", evidence);
        assert_eq!(world.request(3, "a"), (first, true), "{evidence:?} on another connection");
    }
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.settle(first);
    world.write(first, 1, "a");
    world.now = world.now.plus(OUTLIVES_MS);
    world.message(1, "a", Evidence::Nothing);
    assert_eq!(world.request(2, "a"), (first, true), "a cancellation, on whichever connection");
    world.write(first, 2, "a");
    world.message(2, "a", Evidence::Request);
    assert!(!world.request(3, "a").1, "requests follow the response on their connection");
}

#[test]
fn an_answer_that_was_never_written_is_unheard_whatever_else_is_asked() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    world.settle(first);
    world.other_call(2, "a");
    world.other_call(2, "a");
    assert_eq!(world.request(2, "a"), (first, true));
}

#[test]
fn another_live_channel_makes_its_own_calls_and_a_gone_one_is_taken_over() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    let (second, taken) = world.request(2, "b");
    assert!(!taken && second != first, "channel a is alive");
    world.reissues.channel_gone("a");
    assert_eq!(world.request(3, "c"), (first, true));
}

#[test]
fn a_silent_channel_is_gone_after_its_keep_alive() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    world.now = world.now.plus(KEEP_ALIVE_MS + 1);
    assert_eq!(world.request(2, "b"), (first, true));
}

#[test]
fn two_lost_answers_go_to_two_requests() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    let (second, _) = world.request(2, "a");
    for (call, connection) in [(first, 1), (second, 2)] {
        world.leave(call, connection);
        world.settle(call);
    }
    assert_eq!(world.request(3, "a"), (first, true));
    world.write(first, 3, "a");
    assert_eq!(world.request(4, "a"), (second, true), "each earlier call goes to one request first");
}

#[test]
fn the_window_ends() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    world.settle(first);
    world.now = world.now.plus(WINDOW_MS + 1);
    assert!(!world.request(2, "a").1);
    assert!(world.reissues.leaving.len() <= 1, "what is over is forgotten");
}

#[test]
fn an_unfinished_call_matches_whatever_its_age() {
    let mut world = World::new();
    let (first, _) = world.request(1, "a");
    world.leave(first, 1);
    world.now = world.now.plus(10 * WINDOW_MS);
    assert_eq!(world.request(2, "b"), (first, true));
}

#[test]
fn after_a_restart_the_window_counts_from_the_durable_answer() {
    let mut world = World::new();
    let call = CallId(uuid::Uuid::from_u128(99));
    let new = NewOrigin { hash: HASH, call, channel: String::new(), window_ms: WINDOW_MS, gated: Gated::No };
    let settled = Some(Millis(world.now.0 - 1_000));
    world.reissues.read_back(new.clone(), settled);
    world.reissues.read_back(new, settled);
    assert_eq!(world.request(1, "a"), (call, true));
    assert!(!world.request(2, "a").1, "one earlier call, one request at a time");
}

#[test]
fn a_hold_counts_from_its_first_collection() {
    let mut world = World::new();
    let call = CallId(uuid::Uuid::from_u128(98));
    world.reissues.read_back(
        NewOrigin { hash: HASH, call, channel: String::new(), window_ms: WINDOW_MS, gated: Gated::Yes },
        None,
    );
    world.settle(call);
    world.now = world.now.plus(5 * WINDOW_MS);
    assert_eq!(
        world.request(1, "a"),
        (call, true),
        "approved and done long ago, and nobody has collected it"
    );
    world.write(call, 1, "a");
    world.now = world.now.plus(WINDOW_MS + 1);
    assert!(!world.request(2, "a").1);
}

#[test]
fn what_was_heard_is_forgotten() {
    let mut world = World::new();
    for _ in 0..100 {
        let (call, _) = world.request(1, "a");
        world.settle(call);
        world.write(call, 1, "a");
    }
    world.other_call(1, "a");
    assert!(world.reissues.origins.is_empty());
}
