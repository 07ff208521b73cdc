//! The one suite that every journal passes; `journal.rs` says in words what it checks.

#[path = "contract/claims.rs"]
mod claims;
#[path = "contract/cursors.rs"]
mod cursors;
mod facts;
#[path = "contract/keeping.rs"]
mod keeping;
#[path = "contract/listing.rs"]
mod listing;
#[path = "contract/media.rs"]
mod media;
#[path = "contract/pruning.rs"]
mod pruning;
#[path = "contract/random.rs"]
mod random;
#[path = "contract/register.rs"]
mod register;
#[path = "contract/writing.rs"]
mod writing;

/// Runs each story on each medium.
macro_rules! contract {
    ($($room:ident { $($story:ident),* $(,)? })*) => {
        mod on {
            $($(
                    mod $story {
                        #[test]
                        fn memory() {
                            crate::$room::$story(&mut crate::media::memory_at_once());
                        }
                        #[test]
                        fn memory_on_flush() {
                            crate::$room::$story(&mut crate::media::memory_on_flush());
                        }
                        #[test]
                        #[cfg(feature = "redb")]
                        fn redb() {
                            crate::$room::$story(&mut crate::media::disk::two_phase());
                        }
                        #[test]
                        #[cfg(feature = "redb")]
                        fn redb_one_phase() {
                            crate::$room::$story(&mut crate::media::disk::one_phase());
                        }
                    }
            )*)*
        }
    };
}

contract! {
    writing {
        an_append_is_readable_once_acknowledged,
        texts_stay_byte_for_byte,
        another_number_of_entries_is_a_conflict,
        what_cannot_follow_is_refused_and_the_journal_goes_on,
        a_summary_is_the_fold_of_the_entries,
        entries_of_one_append_share_their_fate,
        the_tail_is_in_the_order_of_sequence_numbers,
        everything_acknowledged_is_there_after_a_restart,
        appends_that_may_wait_are_answered_too,
        closing_writes_what_is_queued,
        a_whole_journal_verifies,
    }
    claims {
        a_taken_key_names_its_call,
        a_key_leads_to_its_call,
        the_first_taken_key_decides,
        keys_are_claimed_all_or_none,
        a_key_may_be_named_twice,
        two_claims_at_once_have_one_winner,
        released_keys_are_free,
        a_call_releases_only_its_own_keys,
        a_call_may_release_its_keys_as_it_is_made,
        positions_count_per_incarnation,
        a_new_incarnation_meets_the_calls_of_the_old_one,
        a_position_stays_where_it_is_when_a_key_was_taken,
        of_many_threads_one_claims_the_key,
    }
    register {
        the_register_is_kept_in_the_chain_and_is_no_call,
        the_register_takes_no_call_s_facts,
        a_use_is_claimed_for_good,
        a_spent_use_leaves_nothing,
        nothing_of_the_register_is_pruned,
    }
    listing {
        identical_calls_come_newest_first,
        filters_agree_with_looking_at_every_call,
        pages_hold_every_call_once,
        unfinished_calls_come_oldest_first,
        unknown_calls_have_nothing,
    }
    cursors {
        a_reader_goes_on_where_it_was,
        a_cursor_is_no_entry,
        the_head_is_the_newest_entry,
    }
    keeping {
        what_is_kept_is_there_after_a_restart,
        names_are_found_by_how_they_begin,
        what_is_kept_is_no_entry,
    }
    pruning {
        content_goes_first_and_the_line_later,
        unfinished_and_unknown_calls_stay,
        a_pruned_call_can_still_be_appended_to,
        pruning_stops_at_the_limit,
        a_pruned_journal_verifies,
    }
}
