//! The writer against a simulated disk.
//!
//! Bugs that were planted to see these tests find them, and what went red. "Crashes" is
//! `ten_thousand_crashes_lose_nothing_that_was_acknowledged`, "anywhere" the tests of `everywhere`.
//!
//! | planted | found by |
//! |---|---|
//! | acknowledged before the sync | crashes, anywhere, `a_failed_sync_is_poison_until_a_new_segment_is_durable` |
//! | a failed sync tried again and believed | crashes, `a_failed_sync_is_poison_until_a_new_segment_is_durable` |
//! | directory not synced after a file is made | crashes, anywhere |
//! | directory not synced after a file is removed | `the_oldest_segments_go_after_a_durable_prune_record` |
//! | a poisoned segment used again | crashes, `a_poisoned_chain_goes_on_after_its_last_durable_record_under_the_same_boot` |
//! | drafts not retained until they are durable | crashes, anywhere, `a_full_disk_only_ends_the_segment` |
//! | recovery goes on behind a bad line | crashes, anywhere |
//! | recovery trusts a tail that it has not synced | crashes, `a_segment_that_cannot_be_synced_at_open_decides_nothing_until_the_next_boot` |
//! | a torn tail taken for damage | crashes, anywhere |
//! | a gap counted apart from the queue | `a_disk_that_is_filled_and_freed_a_hundred_times_keeps_the_count` |
//! | a gap behind the next event | `a_gap_stands_exactly_before_the_next_event` |
//! | the reserved quarter ignored | `a_quarter_of_the_queue_is_kept_for_critical_events` |
//! | a short write not continued | crashes, `a_full_disk_only_ends_the_segment` |
//! | the lock file removed at the end | crashes, `a_log_is_opened_written_closed_and_continued` |
//! | a segment pruned before the record is durable | crashes, anywhere, `the_oldest_segments_go_after_a_durable_prune_record` |
//! | a durable mark ahead of the sync | crashes, anywhere |
//! | the poison entry never written | crashes, anywhere, `a_failed_sync_is_poison_until_a_new_segment_is_durable` |
//! | the poison entry never cleared | crashes, anywhere |
//! | lines before a full disk acknowledged unsynced | crashes, `a_full_disk_only_ends_the_segment` |
//! | a `close` witnessed that was never synced | crashes |
//! | the open file, or its name, not looked at | `a_live_segment_that_somebody_changes_is_left_for_a_new_one` |
//! | drafts left behind when the chain changes | `a_directory_that_was_removed_or_moved_is_made_again_without_a_restart` |
//! | a lost directory not followed | `a_directory_that_was_removed_or_moved_is_made_again_without_a_restart` |
//! | an empty file not used again at open | `crash_looping_on_a_full_disk_uses_one_empty_file` |
//! | the lock let go of after the log is closed | `whoever_hears_that_the_log_is_closed_can_continue_its_chain` |
//! | the log's own records taken for events that held room | `numbers_of_the_log_are_right` |
//! | a pause that does not look before it begins | `queue::tests::nothing_urgent_is_slept_through` |
//!
//! `EINTR` on a lock is the storage's own (`an_interrupted_call_is_made_again_within`), an event emitted by
//! a thread of the log is the layer's.

mod crashes;
mod everywhere;
mod outage;
mod retention;
mod smoke;
mod threads;
mod trouble;

use crate::harness::{oracle, world};
