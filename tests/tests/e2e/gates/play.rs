//! A story of one held call as a table: what happens before the kill, what is found after it, how it ends.

use std::{
    fmt,
    os::unix::fs::symlink,
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_tests::{
    Agent, Answer, Asked, Desk, HttpServer, Served, World, bank, eventually, eventually_some, payment_of,
};
use serde_json::{Value, json};

use super::{ANA, HASTY, OPERATORS};

/// What happens in a story.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The agent makes its call, and is told this at once.
    Ask(&'static str),
    /// The agent makes its call and waits; in the end it hears what everybody hears.
    AskAndWait,
    /// The agent withdraws the call that it waits for.
    Withdraw,
    /// Somebody else's payment of 15.
    Rival,
    /// Somebody else's payment of 15 is with the bank, and does not come back.
    RivalHangs,
    /// The operator with this token approves what is asked now.
    Approve(&'static str),
    /// Ana decides so, with this body.
    Decide(&'static str, &'static str),
    /// The call gets into this state.
    Await(&'static str),
    /// The question becomes this revision.
    AwaitRevision(u64),
    /// The bank's next call suffers this.
    Fault(&'static str),
    /// It has done so.
    FaultFired,
    /// The payment is in the ledger.
    AwaitPaid,
    /// The bank's program is gone, and so is its process.
    BankGoes,
    /// It is there again.
    BankReturns,
    /// Kill -9; it stays down for now.
    Kill,
    /// Under this policy below the rule from now on; for the next start.
    Policy(&'static str),
    /// While it is down, this clock of the call runs out.
    RunsOut(&'static str),
    /// It is started again.
    Start,
}

/// What an agent gets that makes the same call under the same key once more, after the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Again {
    /// The same call, with the same end.
    Same,
    /// A new call: nothing came of the old one, and nobody objected.
    Fresh,
    /// A new call, which the policy denies at once.
    Denied,
}

/// Where the call goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shop {
    /// The bank.
    Bank,
    /// A server that turns the first call away, with proof that it did nothing, for so many seconds.
    TurnsAway(u64),
}

/// A story. It is killed after `until`, and once more after its end.
pub(super) struct Story {
    pub(super) shop: Shop,
    /// Below the rule that asks.
    pub(super) policy: &'static str,
    pub(super) amount: i64,
    pub(super) until: &'static [Step],
    /// The state in which it is killed, as the journal has it.
    pub(super) killed_in: &'static str,
    /// While it is down.
    pub(super) meanwhile: &'static [Step],
    /// The state in which it is found, at once or soon.
    pub(super) found: &'static str,
    /// What an agent is told that comes again then.
    pub(super) told: &'static str,
    pub(super) then: &'static [Step],
    pub(super) ends: &'static str,
    /// What everybody is told of the end.
    pub(super) code: &'static str,
    pub(super) again: Again,
    /// How often it happened.
    pub(super) made: usize,
}

impl Story {
    /// One that ends well: the parts that are alike in most of them.
    pub(super) const PLAIN: Story = Story {
        shop: Shop::Bank,
        policy: "",
        amount: 40,
        until: &[Step::Ask("held")],
        killed_in: "asking",
        meanwhile: &[],
        found: "asking",
        told: "held",
        then: &[Step::Approve(ANA)],
        ends: "succeeded",
        code: "",
        again: Again::Same,
        made: 1,
    };

    /// Plays it.
    #[track_caller]
    pub(super) fn play(&self) {
        let mut stage = Stage::new(self);
        for step in self.until {
            stage.take(*step);
        }
        let before = stage.desk().call(stage.call());
        stage.take(Step::Kill);
        // Nobody runs: this is what the journal alone says.
        let in_journal = stage.world.run(&["show", stage.call(), "--json"]).json();
        assert_eq!(in_journal["call"]["state"], self.killed_in, "{in_journal}");
        for step in self.meanwhile {
            stage.take(*step);
        }
        stage.take(Step::Start);
        let after = stage.desk().await_state(stage.call(), self.found);
        if self.found == self.killed_in && self.policy_stays() {
            assert_eq!(after["hold"], before["hold"], "the question is another one");
        }
        assert_eq!(stage.told().code(), self.told, "{:?}", stage.told());
        for step in self.then {
            stage.take(*step);
        }
        stage.desk().await_state(stage.call(), self.ends);
        stage.close();
        // The end outlives a kill as everything before it does.
        stage.take(Step::Kill);
        stage.take(Step::Start);
        stage.close();
    }

    fn policy_stays(&self) -> bool {
        !self.meanwhile.iter().any(|step| matches!(step, Step::Policy(_)))
    }
}

/// The programs of one story.
struct Stage<'a> {
    story: &'a Story,
    world: World,
    shop: Option<HttpServer>,
    policy: &'static str,
    served: Option<Served>,
    call: Option<String>,
    waits: Vec<Asked>,
    agents: Vec<Agent>,
    rivals: usize,
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("call", &self.call).finish_non_exhaustive()
    }
}

impl<'a> Stage<'a> {
    fn new(story: &'a Story) -> Self {
        let world = World::empty();
        let shop = match story.shop {
            Shop::Bank => {
                symlink(bank(), world.path("bank")).expect("the directory is ours");
                None
            }
            Shop::TurnsAway(seconds) => {
                world.write("tools.json", r#"[{"name":"transfer","inputSchema":{"type":"object"}}]"#);
                let part = json!({ "transfer": { "status": 429, "retry_after": seconds, "times": 1 } });
                world.write("script.json", &part.to_string());
                Some(world.http_odd())
            }
        };
        let mut stage = Self {
            story,
            world,
            shop,
            policy: story.policy,
            served: None,
            call: None,
            waits: Vec::new(),
            agents: Vec::new(),
            rivals: 0,
        };
        stage.take(Step::Start);
        stage
    }

    fn configure(&self) {
        let server = match &self.shop {
            None => {
                "command = \"./bank\"\nargs = [\"--ledger\", \"ledger.jsonl\", \"--faults\", \"faults\"]\n"
                    .to_owned()
            }
            Some(odd) => format!("url = \"http://{}/mcp\"\nunexecuted = [429]\n", odd.address),
        };
        self.world.configure(&format!(
            "[servers.shop]\n{server}{OPERATORS}{HASTY}[[rule]]\nid = \"payments\"\neffect = \"ask\"\n\
             server = \"shop\"\ntool = \"transfer\"\nwhen = [{{ arg = \"/amount\", op = \"gt\", value = 20 }}]\n{}",
            self.policy
        ));
    }

    fn served(&self) -> &Served {
        self.served.as_ref().expect("it runs")
    }

    fn desk(&self) -> Desk<'_> {
        Desk::of(self.served(), ANA)
    }

    fn call(&self) -> &str {
        self.call.as_deref().expect("the agent has asked")
    }

    fn arguments(&self) -> Value {
        payment_of(self.story.amount, "INV-1")
    }

    fn agent(&self) -> Agent {
        Agent::modern(self.served(), "agent")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(code) => {
                let told = self.agent().call_as("k", "shop__transfer", self.arguments());
                assert_eq!((told.code(), told.replayed()), (code, false), "{told:?}");
                self.note(told.call());
            }
            Step::AskAndWait => self.ask_and_wait(),
            Step::Withdraw => {
                let (asked, agent) = (self.waits.pop().expect("it waits"), self.agents.last_mut());
                let cancelled = json!({ "requestId": asked.id });
                agent.expect("who waits").notify("notifications/cancelled", cancelled);
                assert!(asked.ends_without_answer());
            }
            Step::Rival => {
                let paid =
                    Agent::modern(self.served(), "rival").call("shop__transfer", payment_of(15, "INV-2"));
                assert!(paid.succeeded(), "{paid:?}");
                self.rivals += 1;
            }
            Step::RivalHangs => {
                let mut rival = Agent::modern(self.served(), "rival");
                let asked = rival.ask("shop__transfer", payment_of(15, "INV-2"));
                self.take(Step::FaultFired);
                asked.hang_up();
            }
            Step::Approve(token) => Desk::of(self.served(), token).approve(self.call()),
            Step::Decide(verb, body) => self.decide(verb, body),
            Step::Await(state) => drop(self.desk().await_state(self.call(), state)),
            Step::AwaitRevision(revision) => eventually("it is asked again", || {
                self.desk().call(self.call())["hold"]["revision"] == revision
            }),
            Step::Fault(line) => self.world.fault(line),
            Step::FaultFired => eventually("the bank suffers", || self.world.fault_fired()),
            Step::AwaitPaid => eventually("it is paid", || self.world.paid("INV-1") == 1),
            Step::BankGoes => {
                std::fs::remove_file(self.world.path("bank")).expect("the directory is ours");
                self.world.kill_one("bank");
                // What is sent before that is known would be lost, not kept.
                self.desk().await_down("shop");
            }
            Step::BankReturns => symlink(bank(), self.world.path("bank")).expect("the directory is ours"),
            Step::Kill => {
                self.served.take().expect("it runs").kill();
                assert!(self.world.run(&["verify"]).ok().starts_with("ok: "));
            }
            Step::Policy(policy) => self.policy = policy,
            Step::RunsOut(clock) => self.await_clock(clock),
            Step::Start => {
                self.configure();
                self.served = Some(self.world.serve());
            }
        }
    }

    fn ask_and_wait(&mut self) {
        let mut agent = Agent::legacy(self.served(), "agent");
        self.waits.push(agent.ask_as("k", "shop__transfer", self.arguments()));
        self.agents.push(agent);
        if self.call.is_none() {
            let call = eventually_some("the call is known", || {
                self.desk().get("/calls").json()["calls"][0]["call"].as_str().map(str::to_owned)
            });
            self.note(call);
        }
    }

    fn note(&mut self, call: String) {
        assert!(self.call.as_ref().is_none_or(|known| *known == call), "another call");
        self.call = Some(call);
    }

    fn decide(&self, verb: &str, body: &str) {
        let body: Value = serde_json::from_str(body).expect("the story writes JSON");
        let on_digest = matches!(verb, "reject" | "edit" | "respond");
        let response = match on_digest {
            true => self.desk().decide(self.call(), verb, body),
            false => self.desk().post(&format!("/calls/{}/{verb}", self.call()), &body),
        };
        assert_eq!(response.status(), 200, "{verb}: {}", response.body);
    }

    /// Until the clock that was read before the kill is past this moment.
    fn await_clock(&self, clock: &str) {
        let history = self.world.run(&["show", self.call(), "--json"]).json();
        let at = history["hold"][clock].as_u64().unwrap_or_else(|| panic!("no {clock}: {history}"));
        eventually("the clock runs out", || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
            now.as_millis() > u128::from(at)
        });
    }

    /// What an agent is told that comes again and does not wait.
    fn told(&self) -> Answer {
        self.agent().call("holdfast_wait", json!({ "call_id": self.call(), "timeout_s": 0 }))
    }

    /// How often it happened, by the books of the shop.
    fn made(&self) -> usize {
        match self.story.shop {
            Shop::Bank => self.world.paid("INV-1"),
            // The first one was turned away.
            Shop::TurnsAway(_) => self.world.odd_calls("transfer").len().saturating_sub(1),
        }
    }

    /// The end, as the books, the API and agents have it.
    fn close(&mut self) {
        let story = self.story;
        let call = self.desk().call(self.call());
        assert_eq!(call["call"]["state"], story.ends, "{call}");
        for asked in std::mem::take(&mut self.waits) {
            self.heard(&asked.answer());
        }
        self.heard(&self.agent().wait(self.call()));
        assert_eq!(self.made(), story.made, "{call}");
        if story.shop == Shop::Bank {
            assert_eq!(self.world.ledger().len(), story.made + self.rivals, "{call}");
        }
        let again = self.agent().call_as("k", "shop__transfer", self.arguments());
        assert_eq!(again.call() == self.call(), story.again == Again::Same, "{again:?}");
        match story.again {
            Again::Same => self.heard(&again),
            // It waits for a person as the first one did, and is nobody's business here.
            Again::Fresh => assert_eq!(again.code(), "held"),
            Again::Denied => assert_eq!(again.code(), "denied"),
        }
        assert_eq!(self.made(), story.made, "asked again it happened again");
    }

    #[track_caller]
    fn heard(&self, answer: &Answer) {
        assert_eq!((answer.code(), answer.state()), (self.story.code, self.story.ends), "{answer:?}");
        if answer.code().is_empty() {
            assert_eq!(answer.is_error(), self.story.ends == "failed", "{answer:?}");
        }
    }
}
