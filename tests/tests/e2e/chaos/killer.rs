//! Who kills, and at which moments.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use holdfast_tests::{Served, World, eventually, eventually_some};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::dice::Dice;

/// Where in the life of a call somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// `serve`, before it listens, perhaps while it reads its journal back.
    Starting,
    /// `serve`, just after it listens, while the agents come back.
    Connecting,
    /// `serve`, while the bank works on a payment, which it then makes all the same.
    InCall,
    /// `serve`, when the bank has made a payment and not yet answered.
    Committed,
    /// `serve`, at any moment.
    Anytime,
    /// The bank, at any moment.
    Bank,
    /// The bank, by its own hand, before it makes a payment.
    BankBefore,
    /// The bank, by its own hand, after it made a payment.
    BankAfter,
    /// Nobody, but the bank reports an error after it made a payment.
    BankErrs,
    /// Both.
    Both,
}

impl Place {
    /// Each is visited in turn; two of three are about `serve`.
    const TOUR: [Place; 15] = [
        Place::InCall,
        Place::Starting,
        Place::Committed,
        Place::BankAfter,
        Place::Anytime,
        Place::Connecting,
        Place::Bank,
        Place::Committed,
        Place::Starting,
        Place::BankBefore,
        Place::InCall,
        Place::Anytime,
        Place::Both,
        Place::BankErrs,
        Place::Anytime,
    ];

    /// The place of a round.
    pub(super) fn of_round(round: usize) -> Place {
        Self::TOUR[round % Self::TOUR.len()]
    }

    /// The place of a round in which Holdfast alone is killed.
    pub(super) fn of_crash(round: usize) -> Place {
        [Place::Anytime, Place::InCall, Place::Anytime, Place::Committed, Place::Starting, Place::Connecting]
            [round % 6]
    }
}

/// How `serve` comes back.
pub(super) enum Keeper {
    /// The killer starts it, and all that it had started was killed with it.
    Killer(Option<Served>),
    /// The killer starts it, and its servers have been kept.
    Kept(Option<Served>),
    /// Bridges start it when they need it.
    Bridges,
}

/// Kills, and knows how often.
pub(super) struct Killer<'a> {
    world: &'a World,
    dice: Dice,
    keeper: Keeper,
    /// Kills of each kind.
    pub(super) kills: BTreeMap<Place, usize>,
}

impl<'a> Killer<'a> {
    /// A killer of what `keeper` keeps alive.
    pub(super) fn new(world: &'a World, dice: Dice, keeper: Keeper) -> Killer<'a> {
        Killer { world, dice, keeper, kills: BTreeMap::new() }
    }

    /// Lets everybody work for a moment, and then kills. Afterwards `serve` is there again.
    pub(super) fn round(&mut self, place: Place) {
        self.pause(Duration::from_millis(120));
        match place {
            Place::Starting => self.starting(),
            Place::Connecting => {
                self.restart();
                self.pause(Duration::from_millis(15));
                self.restart();
            }
            Place::InCall => {
                self.suffer("slow=200ms once");
                self.restart();
            }
            Place::Committed => {
                let before = self.ledger_bytes();
                self.suffer("slow-after=200ms once");
                let end = Instant::now() + Duration::from_millis(100);
                while self.ledger_bytes() == before && Instant::now() < end {
                    thread::yield_now();
                }
                self.restart();
            }
            Place::Anytime => self.restart(),
            Place::Bank => self.kill_banks(),
            Place::BankBefore => self.suffer("die-before-commit once"),
            Place::BankAfter => self.suffer("die-after-commit once"),
            Place::BankErrs => self.suffer("error-after-commit once"),
            Place::Both => {
                self.kill_banks();
                self.restart();
            }
        }
        *self.kills.entry(place).or_default() += 1;
    }

    /// The `serve` that is left.
    pub(super) fn into_served(self) -> Option<Served> {
        match self.keeper {
            Keeper::Killer(served) | Keeper::Kept(served) => served,
            Keeper::Bridges => None,
        }
    }

    /// Makes the bank do this to the next payment, and waits until it does.
    fn suffer(&self, fault: &str) {
        self.world.fault(fault);
        eventually("a payment suffers the fault", || self.world.fault_fired());
    }

    fn restart(&mut self) {
        self.kill_serve();
        self.await_serve();
    }

    /// Kills a `serve` that is on its way; it may have got further than that.
    fn starting(&mut self) {
        self.kill_serve();
        let within = self.dice.up_to(Duration::from_millis(60));
        match &self.keeper {
            Keeper::Killer(_) | Keeper::Kept(_) => {
                let mut command = self.world.holdfast(&["serve"]);
                quiet(&mut command, self.world.path("serve.log"));
                let mut child = command.spawn().expect("the program starts");
                thread::sleep(within);
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
            }
            Keeper::Bridges => {
                eventually("a bridge starts serve", || !self.serving().is_empty());
                thread::sleep(within);
                self.kill_serve();
            }
        }
        self.await_serve();
    }

    fn kill_serve(&mut self) {
        match &mut self.keeper {
            Keeper::Killer(served) => return served.take().expect("there is one between rounds").kill(),
            Keeper::Kept(served) => return served.take().expect("there is one between rounds").crash(),
            Keeper::Bridges => {}
        }
        let serving = self.serving();
        serving.iter().for_each(|pid| end(*pid));
        eventually("the killed serve is gone", || serving.iter().all(|pid| !self.serving().contains(pid)));
    }

    /// Starts `serve`, or waits until it was started.
    fn await_serve(&mut self) {
        match &mut self.keeper {
            Keeper::Killer(served) | Keeper::Kept(served) => *served = Some(self.world.serve()),
            Keeper::Bridges => {
                eventually_some("serve is back", || address(self.world));
            }
        }
    }

    fn kill_banks(&self) {
        let banks = eventually_some("there is a bank", || {
            let banks = self.world.processes_of("bank");
            (!banks.is_empty()).then_some(banks)
        });
        banks.into_iter().for_each(end);
    }

    fn serving(&self) -> Vec<i32> {
        let is_serve = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"serve"))
        };
        self.world.processes_of("holdfast").into_iter().filter(is_serve).collect()
    }

    fn ledger_bytes(&self) -> u64 {
        fs::metadata(self.world.path("ledger.jsonl")).map_or(0, |file| file.len())
    }

    fn pause(&mut self, most: Duration) {
        thread::sleep(self.dice.up_to(most));
    }
}

/// Address of the inbox and token of the operator, as the running `serve` gives them to commands.
pub(super) fn address(world: &World) -> Option<[String; 2]> {
    let text = fs::read_to_string(world.path("holdfast.redb.serve.json")).ok()?;
    let said: serde_json::Value = serde_json::from_str(&text).ok()?;
    let pid = said["pid"].as_i64()?;
    // What a killed one said is still there until the next one starts.
    let lives = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let inbox = said["inbox"].as_str()?.strip_prefix("http://")?.strip_suffix('/')?;
    lives.then(|| [inbox.to_owned(), said["operator_token"].as_str().unwrap_or_default().to_owned()])
}

fn quiet(command: &mut Command, log: PathBuf) {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("the directory is ours");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
}

fn end(pid: i32) {
    // It may just have ended by itself.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
