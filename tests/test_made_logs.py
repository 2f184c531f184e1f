"""Made logs of the benchmarks: what is said of their truth is how they were made."""

import numpy as np

from benchmarks import knowable
from benchmarks.made_logs import turning


def test_what_is_left_of_a_turning_log_without_its_interest_is_one_quality_per_item():
    log = turning(new_share=0.2, n_users=60, n_shown=40, hide_unseen=False, cap=10)
    qualities = {}
    for part in ("train", "valid", "test"):
        rows = log[part]
        logit = np.log(rows["probability"] / (1 - rows["probability"]))
        for item, quality in zip(rows["item"], logit - knowable.interest(rows), strict=True):
            qualities.setdefault(item, []).append(quality)
    assert len(qualities) > 40
    assert max(np.ptp(its) for its in qualities.values()) < 1e-9


def test_what_can_be_known_of_a_new_item_is_its_interest_alone():
    log = turning(new_share=0.6, n_users=200, n_shown=40)
    probability, rows = knowable.turning(log), log["test"]
    new = np.flatnonzero(rows["item"] == 1)
    order = new[np.argsort(knowable.interest(rows)[new])]
    assert len(new) > 100
    assert (np.diff(probability[order]) >= -1e-12).all()
    assert np.ptp(probability[rows["item"] > 1]) > np.ptp(probability[new])
