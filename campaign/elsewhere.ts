/** Hostile acts that aren't played on the lab, as each has a test of its own: with whose means, what, and where it is tested. */

type Tested = [means: string, file: string, acts: Record<string, string>];

/** Acts by the name of the test that plays them. */
const tested: Tested[] = [
  [
    "the CHT machine's key",
    "test/guard/test_guard.py",
    {
      test_no_session_is_prepared_today_to_remove_later_what_comes_after_it:
        "prepare a session that removes later archives",
      test_commits_end_at_the_limit_for_a_day: "fill the day with transactions",
      test_a_session_that_says_nothing_ends_and_gives_its_lock_back: "keep the lock and say nothing, for days",
      test_a_session_ends_at_its_limit_however_much_it_says: "talk for longer than a session may last",
      test_a_client_that_takes_no_answers_is_ended: "ask, and take no answer",
      test_sessions_that_race_each_write_what_they_have: "write from several sessions at once",
      test_a_false_list_of_archives_is_undone_by_the_operator: "write a false list of archives",
      test_a_variable_of_the_clients_cannot_name_code_to_run: "name code in a variable",
    },
  ],
  [
    "the CHT machine's key, where the guard is gone",
    "test/guard/test_layers.py",
    {
      test_keep_what_a_destroyed_repository_held: "destroy the repository",
      test_keep_what_a_session_prepared_before_would_remove: "remove archives by a session prepared before",
      test_keep_what_is_deleted_and_compacted: "delete and compact",
      test_keep_what_the_account_itself_removes_renames_and_empties: "remove, rename and empty files as the account",
      test_keep_the_key: "exchange the key",
    },
  ],
  [
    "a way past guard and seals: the audit tells",
    "test/guard/test_layers.py",
    {
      test_finds_a_deleted_archive: "an archive is deleted",
      test_finds_pruned_archives: "archives are pruned",
      test_finds_a_renamed_archive: "an archive is renamed",
      test_finds_an_archive_that_was_replaced_by_one_of_its_name: "an archive is replaced by one of its name",
      test_finds_an_object_that_was_written_over: "an object is written over",
      test_finds_that_the_list_of_archives_is_gone: "the list of archives is gone",
      test_finds_segments_that_are_gone_or_changed: "segments are gone or changed",
      test_finds_a_counter_that_went_back_or_is_near_its_end: "the counter went back",
    },
  ],
  [
    "any of it, before retention",
    "test/guard/test_retention.py",
    {
      test_refuses_where_somebody_has_deleted_archives: "archives were deleted",
      test_refuses_where_an_archive_of_the_operators_is_gone_and_the_ledger_was_edited: "the ledger was edited, too",
      test_refuses_times_that_cannot_be: "times were forged",
    },
  ],
  [
    "a hostile archive",
    "test/extract/test_extract.py",
    {
      test_it_writes_nowhere_else_however_it_is_led_there: "lead the extraction elsewhere by links",
      test_an_archive_that_becomes_another_just_then_writes_nothing_elsewhere_and_is_refused:
        "become another archive meanwhile",
    },
  ],
  [
    "the bucket's writer",
    "test/bucket/test_copy.py",
    {
      test_overwriting_everything_harms_no_finished_copy: "write over all names",
      test_the_same_bytes_put_there_with_a_short_lock_before_or_after_the_copy_are_in_no_copy_with_it:
        "put the same bytes with a short lock",
      test_locked_versions_cannot_be_deleted_by_anybody_and_delete_markers_hide_nothing_from_a_restore: "hide versions",
      test_a_forged_index_is_told_of_and_an_earlier_copy_is_a_word_away: "forge an index",
      test_a_file_of_a_forged_copy_that_would_crash_borg_is_never_given_to_it: "forge a file that crashes borg",
      test_an_index_of_what_is_not_there_is_passed_over: "name what isn't there",
      test_an_old_index_put_there_again_is_told_of_by_a_restore: "put an old index there again",
      test_indexes_that_cannot_be_read_stop_no_restore_and_no_list: "put rubbish among the indexes",
    },
  ],
];

/** All of them, one after the other. */
export const elsewhere = tested.flatMap(([means, file, acts]) =>
  Object.entries(acts).map(([test, name]) => ({ means, name, file, test })),
);
