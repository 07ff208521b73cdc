//! Keys: claimed together or not at all, by one call each, and counted positions.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use holdfast_store::{Append, Appended, CallId, KeyFate, KeySource, Refusal};

use crate::{facts::*, media::Medium};

const SOURCES: [KeySource; 4] =
    [KeySource::Transport, KeySource::Explicit, KeySource::Effect, KeySource::Run];

#[track_caller]
fn taken(answer: Result<Appended, Refusal>, by: CallId, as_a: KeySource) {
    assert!(
        matches!(&answer, Err(Refusal::Taken { source, call }) if *call == by && *source == as_a),
        "should be taken by {by} as {as_a:?}: {answer:?}"
    );
}

pub(crate) fn a_taken_key_names_its_call(medium: &mut dyn Medium) {
    for (n, source) in (1..).zip(SOURCES) {
        medium.must(fresh(n, vec![key(source, "k")]));
    }
    medium.restart();
    for (n, source) in (1..).zip(SOURCES) {
        taken(medium.append(fresh(10, vec![key(source, "k")])), call(n), source);
    }
    assert_eq!(medium.journal().history(call(10)).expect("readable"), []);
    medium.must(fresh(10, vec![key(KeySource::Explicit, "another")]));
}

pub(crate) fn a_key_leads_to_its_call(medium: &mut dyn Medium) {
    let k = key(KeySource::Transport, "k");
    let owner = |medium: &dyn Medium| medium.journal().owner(k.hash).expect("readable");
    assert_eq!(owner(medium), None);
    medium.must(fresh(1, vec![k]));
    medium.restart();
    assert_eq!(owner(medium), Some(call(1)));
    medium.must(ended_and_released(1));
    assert_eq!(owner(medium), None);
}

pub(crate) fn the_first_taken_key_decides(medium: &mut dyn Medium) {
    let [transport, explicit, effect] = [KeySource::Transport, KeySource::Explicit, KeySource::Effect];
    medium.must(fresh(1, vec![key(effect, "k")]));
    medium.must(fresh(2, vec![key(transport, "k")]));
    let mut both = fresh(3, vec![key(transport, "k"), key(explicit, "free"), key(effect, "k")]);
    both.claim.position = positioned(3, "life-1").claim.position;
    taken(medium.append(both.clone()), call(2), transport);
    both.claim.keys.reverse();
    taken(medium.append(both), call(1), effect);
}

pub(crate) fn keys_are_claimed_all_or_none(medium: &mut dyn Medium) {
    let [explicit, effect] = [KeySource::Explicit, KeySource::Effect];
    medium.must(fresh(1, vec![key(effect, "k")]));
    taken(medium.append(fresh(2, vec![key(explicit, "free"), key(effect, "k")])), call(1), effect);
    medium.must(fresh(3, vec![key(explicit, "free")]));
    taken(medium.append(fresh(4, vec![key(explicit, "free")])), call(3), explicit);
}

pub(crate) fn a_key_may_be_named_twice(medium: &mut dyn Medium) {
    let twice = vec![key(KeySource::Effect, "k"); 2];
    medium.must(fresh(1, twice.clone()));
    taken(medium.append(fresh(2, twice)), call(1), KeySource::Effect);
}

pub(crate) fn two_claims_at_once_have_one_winner(medium: &mut dyn Medium) {
    let keys = vec![key(KeySource::Explicit, "k")];
    let first = medium.submit(fresh(1, keys.clone()));
    let second = medium.submit(fresh(2, keys));
    let third = medium.submit(fresh(3, vec![]));
    medium.settle();
    assert!(first.wait().is_ok());
    taken(second.wait(), call(1), KeySource::Explicit);
    assert!(third.wait().is_ok(), "a refusal is no other append's business");
    assert_eq!(medium.journal().unfinished().expect("readable"), [call(1), call(3)]);
}

/// Ends call `n`, which was made by [`fresh`], and frees its keys.
fn ended_and_released(n: u32) -> Append {
    let mut ended = append(call(n), 50, 2, vec![answered(1)]);
    ended.keys = KeyFate::Release;
    ended
}

pub(crate) fn released_keys_are_free(medium: &mut dyn Medium) {
    let [explicit, effect] = [KeySource::Explicit, KeySource::Effect];
    let keys = vec![key(explicit, "k"), key(effect, "k")];
    medium.must(fresh(1, keys.clone()));
    medium.restart();
    let mut conflict = ended_and_released(1);
    conflict.expected = 1;
    assert!(medium.append(conflict).is_err());
    taken(medium.append(fresh(2, keys.clone())), call(1), explicit);
    medium.must(ended_and_released(1));
    medium.must(fresh(2, keys.clone()));
    taken(medium.append(fresh(3, keys)), call(2), explicit);

    let mut run = positioned(4, "life-1");
    run.claim.keys = vec![key(effect, "of a run")];
    medium.must(run);
    medium.must(ended_and_released(4));
    medium.must(positioned(5, "life-2"));
    medium.must(fresh(6, vec![key(effect, "of a run")]));
}

pub(crate) fn a_call_releases_only_its_own_keys(medium: &mut dyn Medium) {
    let keys = vec![key(KeySource::Explicit, "k")];
    medium.must(fresh(1, keys.clone()));
    medium.must(ended_and_released(1));
    medium.must(fresh(2, keys.clone()));
    let mut again = append(call(1), 60, 3, vec![joined()]);
    again.keys = KeyFate::Release;
    medium.must(again);
    taken(medium.append(fresh(3, keys)), call(2), KeySource::Explicit);
}

pub(crate) fn a_call_may_release_its_keys_as_it_is_made(medium: &mut dyn Medium) {
    let keys = vec![key(KeySource::Explicit, "k")];
    let mut refused_at_once = append(call(1), 1, 0, vec![made(denied())]);
    refused_at_once.claim.keys = keys.clone();
    refused_at_once.keys = KeyFate::Release;
    medium.must(refused_at_once.clone());
    medium.must(fresh(2, keys));
    refused_at_once.call = call(3);
    taken(medium.append(refused_at_once), call(2), KeySource::Explicit);
}

pub(crate) fn positions_count_per_incarnation(medium: &mut dyn Medium) {
    for n in 1..=3 {
        medium.must(positioned(n, "life-1"));
        medium.restart();
    }
    let n_th =
        |n| positioned(0, "life-1").claim.position.map(|position| position.numbered(n)).into_iter().collect();
    for n in 1..=3 {
        taken(medium.append(fresh(10, n_th(n.into()))), call(n), KeySource::Run);
    }
    medium.must(fresh(10, n_th(4)));
}

pub(crate) fn a_new_incarnation_meets_the_calls_of_the_old_one(medium: &mut dyn Medium) {
    medium.must(positioned(1, "life-1"));
    medium.must(positioned(2, "life-1"));
    // Each refusal moves the new life on by one, durably and although nothing else was written.
    taken(medium.append(positioned(3, "life-2")), call(1), KeySource::Run);
    medium.restart();
    taken(medium.append(positioned(3, "life-2")), call(2), KeySource::Run);
    medium.restart();
    medium.must(positioned(3, "life-2"));
    taken(medium.append(positioned(4, "life-3")), call(1), KeySource::Run);
    taken(medium.append(positioned(4, "life-1")), call(3), KeySource::Run);
}

pub(crate) fn a_position_stays_where_it_is_when_a_key_was_taken(medium: &mut dyn Medium) {
    let k = key(KeySource::Transport, "k");
    medium.must(fresh(1, vec![k]));
    let mut resent = positioned(2, "life-1");
    resent.claim.keys = vec![k];
    taken(medium.append(resent.clone()), call(1), KeySource::Transport);
    resent.expected = 1;
    assert!(matches!(medium.append(resent), Err(Refusal::Conflict { .. })));
    medium.must(positioned(2, "life-1"));
    taken(medium.append(positioned(3, "life-2")), call(2), KeySource::Run);
}

pub(crate) fn of_many_threads_one_claims_the_key(medium: &mut dyn Medium) {
    const THREADS: u32 = 64;
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads: Vec<_> = (1..=THREADS)
        .map(|n| {
            let (journal, start) = (medium.journal(), start.clone());
            thread::spawn(move || {
                start.wait();
                submit(&*journal, fresh(n, vec![key(KeySource::Effect, "k")]))
            })
        })
        .collect();
    let pending: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("it submits")).collect();
    medium.settle();
    let answers: Vec<_> = pending.into_iter().map(Pending::wait).collect();
    let winners: Vec<_> =
        (1..).zip(&answers).filter(|(_, answer)| answer.is_ok()).map(|(n, _)| call(n)).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for answer in answers.into_iter().filter(Result::is_err) {
        taken(answer, winners[0], KeySource::Effect);
    }
    assert_eq!(medium.journal().unfinished().expect("readable"), winners);
}
