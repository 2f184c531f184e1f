"""Fixtures that several files of tests share."""

import signal
from functools import partial

import pytest
import torch
from threadpoolctl import threadpool_limits

from sklearn_din.utils.warnings import log_once, warn_once
from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import CANDIDATE, fit_pipeline, make_frame
from tests.real_data import WHERE, find_real_data
from tests.tables import FORMS, open_once, read_in_pieces

# What "make check" leaves out, by file: tests of more than half a second, and those that start
# processes; "" is all of a file that has many. Found by "pytest --durations=0", looked up by
# test_house.py.
SLOW = {
    "calibrated concurrency device distributed docs ecosystem engines encoding_together faults": "",
    "connections hostile_frames importance imports interruptions page row_memory shown store": "",
    "outcomes pipeline release report scan_logs scan_training told_again": "",
    "abilities aggregates export main messy_logs neighbours onnx_model platt_scaling": "",
    "scan_encoder server sorting trees": "",
    "checkpoint": "a_training_that_was_ended_goes_on_to_the_same_bits "
    "ctrl_c_at_any_line_leaves_a_folder_to_go_on_in five_kills_and_the_same_bits",
    "estimator": "each_epoch_gives_every_row_once_with_its_label_and_weight "
    "equal_seeds_give_equal_bits_and_what_is_global_stays "
    "it_learns_whether_the_candidates_category_is_in_the_history "
    "the_average_of_the_best_check_comes_back",
    "explain": "leaving_out_equals_dropping_the_event_from_the_frame",
    "few_labels": "rare_labels_that_say_nothing_end_at_the_base_rate "
    "some_tens_of_rows_that_say_nothing_end_near_the_base_rate_with_a_memory_too",
    "growth": "a_model_that_an_optimizer_of_torchs_trained_is_saved_and_trained_on "
    "two_passes_equal_one_pass_and_one_more "
    "an_update_leaves_its_model_as_if_nothing_had_been",
    "label_waits": "the_guides_lines_live_scores_and_the_command_line_are_honest",
    "native": "a_training_has_the_same_bits_whatever_threads_its_steps_have "
    "a_thread_that_wakes_late_takes_no_task_of_a_small_batch",
    "net": "an_epoch_is_an_epoch_for_callbacks_and_has_up_to_four_checks "
    "early_stopping_may_stop_within_an_epoch",
    "number_ends": "coin_flips_stay_near_their_rate_whatever_the_price",
    "positions": "items_of_one_relevance_are_alike_wherever_they_are_shown",
    "ranking": "older_events_of_a_candidate_count_as_in_each_pair_alone "
    "rankings_by_every_model_equal_scoring_each_pair_alone",
    "regressor": "it_learns_seconds_better_than_their_mean_and_not_beyond_the_truth",
    "saving": "a_search_by_our_splitter_and_scorer_is_kept "
    "models_of_every_origin_predict_the_same_bits_in_a_fresh_process",
    "scaling": "one_number_far_off_leaves_the_others_apart_and_is_said",
    "several_labels": "both_labels_are_learnt_and_no_purchase_is_likelier_than_its_click",
    "metrics": "gauc_agrees_with_a_loop_over_groups",
    "model_selection": "laws_of_every_fold",
    "negatives": "negatives_of_launched_items_had_come_up_where_the_event_s_item_had "
    "items_of_a_catalogue_are_shown_from_their_launch_on_as_they_were",
    "one_row": "a_row_is_encoded_as_a_frame_of_one_row_is",
    "windows": "mixed_values_are_refused_by_parquet_and_do_not_end_the_process",
}

# What "make proofs" runs, each night, and "make test" leaves out: libraries and systems change it,
# hardly we.
PROOFS = {
    "concurrency": "a_fit_of_one_thread_takes_no_seconds_of_another_one "
    "fits_of_a_search_in_two_processes_have_half_of_the_threads_each "
    "forked_children_fit_and_predict_and_products_have_one_thread_of_blas_for_a_while",
    "connections": "a_process_answers_beside_too_many_connections_and_ends_at_a_signal",
    "ecosystem": "stacks_and_votes_of_pipelines_are_fitted",
    "engines": "a_search_on_dask_gives_the_same_scores_and_sends_the_log_once "
    "partitions_of_users_on_dask_give_the_histories_of_one_machine",
    "faults": "short_memory_ends_in_an_error_and_leaves_nothing_half_written "
    "sigterm_at_the_last_moment_leaves_the_old_state_and_hidden_files_alone "
    "the_command_line_says_in_one_line_that_the_disk_is_full",
    "hostile_frames": "hostile_columns_end_in_answers_or_errors_of_our_own",
    "onnx_model": "the_example_serves",
    "scoring": "dask_scores_partitions",
    "store": "a_signal_ends_the_server_whatever_is_being_loaded "
    "a_signal_ends_the_server_whose_database_does_not_answer "
    "every_post_that_was_answered_is_there_after_kill_9",
}


def pytest_collection_modifyitems(config, items):
    for marker, table in (("slow", SLOW), ("proof", PROOFS)):
        named = {f"test_{file}": names for files, names in table.items() for file in files.split()}
        for item in items:
            names = named.get(item.path.stem)
            if names is not None and (
                not names or item.originalname.removeprefix("test_") in names.split()
            ):
                item.add_marker(marker)
    if "proof" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("proof")])
        items[:] = [item for item in items if not item.get_closest_marker("proof")]


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the two real data sets; the tests that need it are skipped where it is absent."""
    folder = find_real_data()
    if folder is None:
        pytest.skip(f"the real data sets are not there: {WHERE}")
    return folder


@pytest.fixture
def impressions():
    return make_impressions()


@pytest.fixture(params=FORMS)
def as_form(request, tmp_path, monkeypatch):
    """Function that gives a frame one of the forms that the package takes."""
    if request.param == "small scan":
        read_in_pieces(monkeypatch, 7)
    return partial(FORMS[request.param], folder=tmp_path)


@pytest.fixture(scope="module")
def one_database(tmp_path_factory):
    """Opening DuckDB takes longer than it sorts tables of tests."""
    pytest.importorskip("duckdb", reason="needs pip install 'sklearn-din[large]'")
    with open_once(tmp_path_factory.mktemp("spilled")):
        yield


@pytest.fixture(scope="module")
def frame_and_labels():
    """A small click log with every kind of column, and its clicks."""
    return make_frame()


@pytest.fixture(scope="module")
def frame(frame_and_labels):
    return frame_and_labels[0]


@pytest.fixture(scope="module")
def y(frame_and_labels):
    return frame_and_labels[1]


@pytest.fixture(scope="module")
def fitted(frame_and_labels):
    """A Pipeline fitted on that log."""
    return fit_pipeline(*frame_and_labels)


@pytest.fixture(scope="module")
def users(frame):
    """The newest row of each user of that log, without columns of the candidate."""
    return frame.drop_duplicates("user", keep="last").drop(columns=[*CANDIDATE, "tags"])


@pytest.fixture(scope="module")
def candidates(frame):
    """Its items, and a column that no model knows."""
    chosen = frame.drop_duplicates("item")[[*CANDIDATE, "tags"]]
    return chosen.assign(title="Title of " + chosen["item"])


@pytest.fixture(autouse=True)
def nothing_was_said():
    """Neither a warning nor a line of the log that is given once."""
    warn_once.cache_clear()
    log_once.cache_clear()


@pytest.fixture
def ctrl_c_raises():
    """As in a terminal; a shell has processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_thread():
    """As many threads as in another process: sums of another number of parts round differently."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(n_threads)
