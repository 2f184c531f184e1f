"""Two processes fit on one scan: the first one encodes it, the other one reads what it wrote."""

import json

import numpy as np
import pytest
import torch.distributed as dist

from sklearn_din import scan_parquet
from tests import encoding_together as together
from tests.processes import run_together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
    pytest.mark.usefixtures("one_thread"),  # as in the two processes: neighbours round by it
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes wrote, one case after the other; the last one kills rank 1."""
    folder = tmp_path_factory.mktemp("together")
    together.make_files(folder)
    cases = [*together.CASES, "training", "different", *together.FAILING, "killed"]
    statuses = run_together("encoding_together.py", folder, *cases)
    assert statuses == [0, -9]
    return folder


def passes(folder, case):
    return [json.loads((folder / f"{case} {rank}.json").read_text()) for rank in (0, 1)]


def told(folder, case):
    return [(folder / f"{case} {rank}.txt").read_text() for rank in (0, 1)]


def manifests(cache):
    """What each store holds: every file with its digest, and what was learnt."""
    found = {path.parent.name: path.read_bytes() for path in cache.glob("*-*/manifest.json")}
    found = {name: content for name, content in found.items() if not name.startswith("history-")}
    assert not list(cache.glob(".partial-*"))
    return found


@pytest.mark.parametrize("case", together.CASES)
def test_two_processes_write_the_bytes_of_one(folder, tmp_path, case):
    together.CASES[case](folder, tmp_path)
    alone = manifests(tmp_path)
    assert manifests(folder / f"cache of {case}") == alone
    assert sorted(name.partition("-")[0] for name in alone) == ["encoded", "learnt"]


def test_the_first_process_alone_reads_the_rows(folder):
    first, second = passes(folder, "all columns")
    n_groups = len(scan_parquet(folder / "rows.parquet")._table.starts) - 1
    histories = [groups for groups, _, has_history in first if has_history]
    assert histories == [list(range(n_groups))] * 3  # columns, counting, encoding
    assert [column for _, column, _ in second] == ["click"]


def test_two_processes_train_the_model_of_one_on_a_scan(folder, tmp_path):
    first, second = (dict(np.load(folder / f"training {rank}.npz")) for rank in (0, 1))
    alone = together.weights_of(together.train(folder, tmp_path))
    assert first.keys() == alone.keys()
    for name, its in alone.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], its, atol=2e-5, err_msg=name)


def test_processes_that_encode_different_things_write_both(folder):
    assert told(folder, "different") == ["3", "4"]
    assert len(manifests(folder / "cache of different")) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_the_other(folder, rank):
    """Rank 0 fails while rank 1 waits for its rows; rank 1 fails when it has its turn."""
    errors = told(folder, f"failing {rank}")
    assert errors[rank] == "ValueError: something is wrong here"
    assert errors[1 - rank].startswith(
        f"RuntimeError: an encoding by 2 processes needs all of them, and rank {rank} ended with "
        f"ValueError: something is wrong here. Rank {1 - rank} has ended too. Start all of them "
    )
    left = {path.name.partition("-")[0] for path in (folder / f"cache of failing {rank}").iterdir()}
    assert left == ({"learnt"} if rank == 0 else {"learnt", "encoded"})


def test_a_killed_process_ends_the_other(folder):
    first = (folder / "killed 0.txt").read_text()
    assert "rank 1 is gone or does not answer. Rank 0 has ended too." in first
