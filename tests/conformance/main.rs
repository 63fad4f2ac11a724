//! One suite for all journals: whatever stands on the trait may rely on what is tested here.

mod cluster;
mod deployment;
mod durability;
mod failed;
mod fixture;
mod gateways;
mod homes;
mod identity;
mod large;
mod pages;
mod programs;
mod redis;
mod rooms;
mod sentinel;
mod slots;
mod spoiled;
mod subscriptions;
mod twins;
mod workers;

/// Runs every scenario on a fresh journal of each kind, and reads every bell that rings meanwhile.
macro_rules! conformance {
    ($($module:ident :: $scenario:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $scenario() {
                let journal = lasthit::journal::memory::MemoryJournal::new(crate::fixture::SHARDS);
                crate::fixture::settle(&journal).await;
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $scenario() {
                let (_server, journal) = crate::fixture::redis().await;
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
        on_another! { on_valkey, Valkey, $($module::$scenario),* }
        on_another! { on_redis_8, Redis8, $($module::$scenario),* }
        mod on_cluster {
            $(#[tokio::test]
            async fn $scenario() {
                let (_cluster, journal) = crate::fixture::cluster().await;
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
        mod on_valkey_cluster {
            $(#[tokio::test]
            async fn $scenario() {
                let Some((_cluster, journal)) = crate::fixture::other_cluster(servers::Program::Valkey).await else { return };
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
        mod on_replicas {
            $(#[tokio::test]
            async fn $scenario() {
                let (_server, _replica, journal) = crate::fixture::replicated().await;
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
    };
}

/// The same on another program, where it is found.
macro_rules! on_another {
    ($name:ident, $program:ident, $($module:ident :: $scenario:ident),*) => {
        mod $name {
            $(#[tokio::test]
            async fn $scenario() {
                let Some((_server, journal)) = crate::fixture::other(servers::Program::$program).await else { return };
                let listener = crate::fixture::Listener::to(&journal).await;
                crate::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
            })*
        }
    };
}

conformance! {
    gateways::timelines_are_numbered_by_name,
    gateways::who_enters_looks_who_is_there,
    gateways::registering_is_idempotent,
    gateways::a_gateway_that_has_seen_more_than_is_stored_begins_new_eras,
    gateways::a_worker_that_has_seen_more_than_is_stored_begins_new_eras,
    gateways::no_room_counts_as_renewed_before_the_first_commit,
    gateways::steps_are_bound_to_their_server,
    gateways::a_flush_is_stored_once_and_in_sequence,
    gateways::a_gap_is_answered_with_what_is_stored,
    gateways::a_flush_that_contradicts_itself_is_refused,
    gateways::only_a_registered_gateway_that_is_not_fenced_appends,
    gateways::only_fenced_gateways_are_forgotten_and_they_stay_out,
    gateways::who_was_forgotten_is_no_sign_of_a_loss,
    gateways::a_gateway_that_left_appends_no_more,
    gateways::a_rooms_top_never_falls,
    gateways::bells_are_numbered_and_carry_the_flush,
    gateways::an_append_asks_the_idle_gateways_inside,
    gateways::every_message_of_a_step_is_read,
    gateways::every_listener_hears_the_bells_of_its_shards,
    gateways::pushes_arrive_in_the_order_of_their_steps,
    gateways::a_large_flush_is_one_step,
    gateways::a_shard_has_a_place_for_so_many_rooms,
    workers::a_shard_changes_hands_only_from_the_owner_that_was_seen,
    workers::of_racing_claims_one_wins,
    workers::a_lost_lease_writes_nothing,
    workers::a_fence_is_for_ever,
    workers::a_death_needs_the_lease_and_a_fence,
    workers::heartbeats_run_out,
    workers::processes_say_who_they_are,
    workers::what_workers_say_of_their_rooms_is_known_while_it_holds,
    workers::a_survey_tells_everything_at_once,
    workers::an_owner_that_was_lost_is_counted_where_something_was_unresolved,
    workers::rooms_with_timers_are_told_by_when_they_are_due,
    workers::rooms_are_told_page_by_page_while_others_come_and_go,
    workers::an_owner_that_was_lost_is_counted_where_a_timer_was_due,
    workers::attempts_are_counted_by_name_until_the_seq_rises,
    workers::steps_for_shards_and_rooms_of_others_are_refused,
    rooms::a_commit_is_final_once,
    rooms::a_commit_by_a_successor_continues_the_count,
    rooms::a_commit_that_does_not_fit_is_refused_as_a_whole,
    rooms::a_room_is_active_until_its_cursor_is_at_the_tail,
    rooms::a_room_is_loaded_from_its_snapshot_on,
    rooms::a_room_keeps_the_seed_that_it_was_created_with,
    rooms::verdicts_are_paged,
    pages::no_page_is_larger_than_asked,
    pages::a_snapshot_is_written_ahead_and_put_to_use_by_a_commit,
    pages::what_was_written_ahead_by_others_is_never_put_to_use,
    pages::an_ended_room_leaves_nothing_of_its_parts,
    rooms::trimming_keeps_what_was_not_named,
    failed::failed_events_are_kept_once_by_the_commit_that_made_them,
    failed::the_newest_failed_events_of_a_pattern_stay,
    failed::failed_events_outlive_their_room,
    failed::failed_events_are_dropped_one_by_one_or_together,
    programs::a_start_decides_if_nothing_does_or_its_version_is_higher,
    programs::a_push_by_hand_replaces_what_is_there_unless_its_version_is_lower,
    programs::workers_are_told_of_a_push_that_changes_something,
    programs::what_a_pattern_has_is_not_dropped,
    programs::one_program_too_many_is_not_kept,
    programs::stored_rooms_are_told_by_shard,
    rooms::an_ended_room_begins_a_higher_era,
    rooms::a_room_does_not_end_before_its_tail,
}
