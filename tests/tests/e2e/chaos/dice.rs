//! Chance that can be had again: the same seed, the same throws.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// What `HOLDFAST_CHAOS_SEED` says; else something new.
    pub(super) fn seed() -> u64 {
        let given = std::env::var("HOLDFAST_CHAOS_SEED").ok();
        given.map_or_else(
            || RandomState::new().hash_one(std::process::id()),
            |given| given.parse().expect("HOLDFAST_CHAOS_SEED is a number"),
        )
    }

    /// The dice of one of those who throw.
    pub(super) fn of(seed: u64, who: u64) -> Dice {
        let mut dice = Dice(seed ^ who.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in so many throws.
    pub(super) fn one_in(&mut self, throws: u64) -> bool {
        self.below(throws) == 0
    }

    /// A time up to `most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.below(1 << 20) as f64 / f64::from(1 << 20))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
