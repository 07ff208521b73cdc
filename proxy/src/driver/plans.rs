//! Settings that many waiting calls share: one copy of each, however many people have to decide.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_policy::{Gate, Plan};

/// Different settings that are kept; a policy has few, and what is beyond that is merely not shared.
const MOST: usize = 64;

/// The settings and gates of calls that wait.
#[derive(Debug, Default)]
pub(super) struct Plans {
    plans: Shelf<Plan>,
    gates: Shelf<[Gate]>,
}

impl Plans {
    /// The same settings, in the copy that the others have.
    pub(super) fn shared(&self, plan: Arc<Plan>) -> Arc<Plan> {
        self.plans.shared(plan)
    }

    /// The same gates, in the copy that the others have.
    pub(super) fn gates(&self, gates: &Arc<[Gate]>) -> Arc<[Gate]> {
        self.gates.shared(gates.clone())
    }
}

/// One copy of each.
#[derive(Debug)]
struct Shelf<T: ?Sized>(Mutex<Vec<Arc<T>>>);

impl<T: ?Sized> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized + PartialEq> Shelf<T> {
    fn shared(&self, one: Arc<T>) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| **known == one) {
            return same.clone();
        }
        if known.len() >= MOST {
            known.retain(|known| Arc::strong_count(known) > 1);
        }
        if known.len() < MOST {
            known.push(one.clone());
        }
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(call_timeout_ms: u64) -> Arc<Plan> {
        Arc::new(Plan { call_timeout_ms, ..Plan::default() })
    }

    #[test]
    fn what_is_alike_is_one() {
        let plans = Plans::default();
        let (first, other) = (plans.shared(plan(1)), plans.shared(plan(2)));
        assert!(Arc::ptr_eq(&first, &plans.shared(plan(1))));
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn what_nobody_uses_makes_room() {
        let plans = Plans::default();
        let used: Vec<Arc<Plan>> = (0..10).map(|n| plans.shared(plan(n))).collect();
        for n in 10..1_000 {
            assert_eq!(plans.shared(plan(n)).call_timeout_ms, n);
        }
        assert!(Arc::ptr_eq(&used[0], &plans.shared(plan(0))));
        assert!(plans.plans.0.lock().expect("nobody panicked").len() <= MOST);
    }
}
