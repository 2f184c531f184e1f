"""Two processes encode one scan: each reads its row groups, and the files are those of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from sklearn_din import attach_history, scan_parquet
from tests import encoding_together as together

HOUSE = Path(__file__).resolve().parents[1]
SCRIPT = HOUSE / "tests" / "encoding_together.py"

pytestmark = [
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
    pytest.mark.usefixtures("one_thread"),  # as in the two processes: neighbours round by it
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes wrote, one case after the other; the last one kills rank 1."""
    folder = tmp_path_factory.mktemp("together")
    together.make_files(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    cases = [*together.CASES, "training", "again", "different", *together.FAILING, "killed"]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOUSE)}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(folder), *cases],
            env=os.environ | variables | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=900)[1] for process in processes]
    statuses = [process.returncode for process in processes]
    assert statuses == [0, -9], told
    return folder


def passes(folder, case):
    return [json.loads((folder / f"{case} {rank}.json").read_text()) for rank in (0, 1)]


def told(folder, case):
    return [(folder / f"{case} {rank}.txt").read_text() for rank in (0, 1)]


def manifests(cache):
    """What each folder of encoded rows holds: every file with its digest, and what was learnt."""
    found = {path.parent.name: path.read_bytes() for path in cache.glob("encoded-*/manifest.json")}
    assert not list(cache.glob(".partial-*"))
    return found


@pytest.mark.parametrize("case", together.CASES)
def test_two_processes_write_the_bytes_of_one(folder, tmp_path, case):
    together.CASES[case](folder, tmp_path)
    alone = manifests(tmp_path)
    assert manifests(folder / f"cache of {case}") == alone
    assert len(alone) == (4 if case == "some rows" else 1)


def test_each_process_reads_its_own_row_groups(folder):
    first, second = passes(folder, "all columns")
    n_groups = len(scan_parquet(folder / "rows.parquet")._files.starts) - 1
    shares = []
    for its in (first, second):
        whole, counting, encoding = (groups for groups, _, has_history in its if has_history)
        assert whole == list(range(n_groups))  # the first 100,000 rows, which decide the roles
        assert counting == encoding
        shares.append(encoding)
    assert shares[0] + shares[1] == list(range(n_groups))
    assert min(map(len, shares)) >= 2
    assert [its[0] for its in first if its[1] == "user"] != [its[0] for its in second]


def test_two_processes_train_the_model_of_one_on_a_scan(folder, tmp_path):
    first, second = (dict(np.load(folder / f"training {rank}.npz")) for rank in (0, 1))
    alone = together.weights_of(together.train(folder, tmp_path))
    assert first.keys() == alone.keys()
    for name, its in alone.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], its, atol=2e-5, err_msg=name)


def test_a_second_fit_reads_what_the_first_one_kept(folder):
    first, second = map(json.loads, told(folder, "again"))
    assert first == second
    assert [columns for _, columns, _ in first[0]] == ["click"]
    assert len(manifests(folder / "cache of again")) == 1


def test_processes_that_encode_different_things_work_apart(folder):
    assert told(folder, "different") == ["3 319", "4 319"]
    assert len(manifests(folder / "cache of different")) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_ends_the_other_and_leaves_nothing(folder, rank):
    """Rank 1 fails at its own rows, rank 0 at the item neighbours, for which rank 1 waits."""
    errors = told(folder, f"failing {rank}")
    assert errors[rank] == "ValueError: something is wrong here"
    assert errors[1 - rank] == (
        f"RuntimeError: an encoding by 2 processes needs all of them, and rank {rank} ended with "
        f"ValueError: something is wrong here. Rank {1 - rank} has ended too. Start all of them "
        "again: fit begins anew, nothing was kept of what they have encoded."
    )
    assert not list((folder / f"cache of failing {rank}").iterdir())


def test_a_killed_process_ends_the_other_and_leaves_nothing_that_is_read(folder):
    first = (folder / "killed 0.txt").read_text()
    assert "rank 1 is gone or does not answer. Rank 0 has ended too." in first
    left = list((folder / "cache of killed").iterdir())
    assert all(path.name.startswith(".partial-") for path in left)
    assert len(left) == 2  # those of rank 1, which had no chance to remove them


@pytest.mark.parametrize("n_shares", [1, 2, 3, 20])
def test_shares_of_a_scan_have_its_parts_each_once(folder, tmp_path, n_shares):
    scan = scan_parquet(folder / "impressions.parquet", memory="100KB", cache_dir=tmp_path)
    X = attach_history(scan, scan, user="user", time="time", columns="item")
    scattered = np.delete(np.arange(320), 7)
    names = ["item", "hist_item"]
    for view, columns in [
        *((scan[rows], ["item", "time"]) for rows in (slice(None), slice(50, 300), scattered)),
        *((X[rows], names) for rows in (slice(None), scattered[::-1], np.arange(9))),
        (X[scattered], ["hist_item"]),
    ]:
        shares = [view.shared_out(place, n_shares) for place in range(n_shares)]
        found = [part for share in shares for part in share.parts(columns)]
        expected = list(view.parts(columns))
        assert [start for start, _ in found] == [start for start, _ in expected]
        for (_, part), (_, its) in zip(found, expected, strict=True):
            assert part.index.equals(its.index)
            assert all(part[n].tolist() == its[n].tolist() for n in columns if n != "hist_item")
            if "hist_item" in columns:
                assert [cell.tolist() for cell in part["hist_item"]] == [
                    cell.tolist() for cell in its["hist_item"]
                ]
        assert sum(share.n_own_rows for share in shares) == len(view)
