//! Settings that many waiting calls share: one copy of each, however many people have to decide.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_policy::Plan;

/// Different settings that are kept; a policy has few, and what is beyond that is merely not shared.
const MOST: usize = 64;

/// The settings of calls that wait.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<Vec<Arc<Plan>>>);

impl Plans {
    /// The same settings, in the copy that the others have.
    pub(super) fn shared(&self, plan: Arc<Plan>) -> Arc<Plan> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| **known == plan) {
            return same.clone();
        }
        if known.len() >= MOST {
            known.retain(|plan| Arc::strong_count(plan) > 1);
        }
        if known.len() < MOST {
            known.push(plan.clone());
        }
        plan
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
        assert!(plans.0.lock().expect("nobody panicked").len() <= MOST);
    }
}
