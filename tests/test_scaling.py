"""Numbers: columns, and those that go with a history's events."""

import numpy as np
import pandas as pd

from sklearn_din.transformers import HistorySequenceEncoder
from tests.click_frames import as_lists, encoder, same, with_windows


def test_numbers_are_standardised_and_missing_ones_indicated():
    frame = pd.DataFrame({"price": [1.0, 3.0, np.nan], "size": [2.0, 2.0, 2.0]})
    X = HistorySequenceEncoder().fit_transform(frame)

    assert X.keys() == ["price", "price_missing", "size"]
    assert X["price"].dtype == np.float32
    assert X["price"].tolist() == [-1.0, 1.0, 0.0]
    assert X["price_missing"].tolist() == [0.0, 0.0, 1.0]
    assert X["size"].tolist() == [0.0, 0.0, 0.0]


def test_a_column_of_nothing_but_missing_numbers_reads_zero():
    frame = pd.DataFrame({"price": [np.nan, np.nan]})
    X = HistorySequenceEncoder().fit_transform(frame)

    assert X["price"].tolist() == [0.0, 0.0]
    assert X["price_missing"].tolist() == [1.0, 1.0]


def test_an_indicator_never_takes_another_columns_name():
    frame = pd.DataFrame({"price": [1.0, np.nan], "price_missing": [True, False]})
    X = HistorySequenceEncoder().fit_transform(frame)

    assert X.keys() == ["price", "price_missing"]
    assert X["price_missing"].dtype == np.int32


def test_times_elapsed_are_scaled_logs_of_anchor_minus_time():
    frame = with_windows(elapsed="hist_elapsed")
    elapsed = [np.asarray(cell) for cell in frame["hist_elapsed"]]
    scale = 2.0 ** np.round(np.log2(np.median(np.concatenate(elapsed))))
    X = encoder().fit_transform(frame)

    mask = X["hist_elapsed_mask"]
    for row, cell in enumerate(elapsed):
        expected = np.log1p(cell / scale)
        np.testing.assert_allclose(X["hist_elapsed"][row][mask[row]], expected, rtol=1e-6)
    assert X["hist_elapsed"].dtype == np.float32


def test_times_elapsed_may_come_as_lists_when_serving():
    frame = with_windows(elapsed="hist_elapsed")
    fitted = encoder().fit(frame)
    served, X = fitted.transform(as_lists(frame)), fitted.transform(frame)

    np.testing.assert_allclose(served["hist_elapsed"], X["hist_elapsed"], rtol=1e-5)
    assert served["hist_elapsed"].dtype == np.float32


def test_plain_numbers_of_events_may_come_as_windows_when_serving():
    frame = with_windows(elapsed="hist_elapsed")
    histories = {("hist_item", "hist_category", "hist_elapsed"): ("item", "category", None)}
    fitted = encoder(histories=histories).fit(as_lists(frame))

    same(fitted.transform(frame), fitted.transform(as_lists(frame)))


def test_times_elapsed_are_known_again_when_a_file_has_made_lists_of_them():
    frame = with_windows(n_events=120, elapsed="hist_elapsed")
    windows, lists = encoder().fit(frame), encoder().fit(as_lists(frame))
    assert windows.scales_["hist_elapsed"].is_elapsed
    assert lists.scales_ == windows.scales_
    same(windows.transform(frame), lists.transform(as_lists(frame)))

    prices = frame["hist_elapsed"].map(lambda cell: cell[::-1].tolist())  # they grow
    assert not encoder().fit(frame.assign(hist_elapsed=prices)).scales_["hist_elapsed"].is_elapsed
