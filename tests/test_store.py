"""Arrays on disk: there as a whole or not at all, and gone with their last reader."""

import gc
import os
import pickle
import tempfile

import numpy as np
import pytest

from sklearn_din.features.store import create_store, open_store

MEMORY = 10**6


def write(parent, value=0.0):
    with create_store(parent, "rows", memory=MEMORY) as writer:
        writer.append("item", np.arange(3, dtype=np.int32))
        writer.append("item", np.arange(3, 5))
        writer.append("vector", np.ones((2, 4)))
        writer.append("vector", np.zeros((1, 4)))
        writer.append("none", np.empty(0, np.float32))
        filled = writer.allocate("filled", (6, 2), np.float32)
        filled[[5, 0]] = 7 + value
        writer.facts["n_rows"] = 5
        return writer.finish()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_was_written_is_read(place, is_kept):
    store = write(place / "cache" if is_kept else None)
    if is_kept:
        store = open_store(place / "cache", "rows", memory=MEMORY)
    assert store.names == ["item", "vector", "none", "filled"]
    assert store["item"].tolist() == [0, 1, 2, 3, 4]
    assert store["item"].dtype == np.int32
    assert store["vector"].tolist() == [[1] * 4] * 2 + [[0] * 4]
    assert store["none"].dtype == np.float32
    assert store["none"].shape == (0,)
    assert store["filled"][:, 0].tolist() == [7, 0, 0, 0, 0, 7]
    assert store.facts == {"n_rows": 5}
    assert store.memory == MEMORY
    assert store.nbytes == 5 * 4 + 12 * 8 + 12 * 4
    assert "user" not in store


@pytest.mark.parametrize("harm", ["cut", "bits", "gone", "manifest"])
def test_a_damaged_folder_is_not_opened_and_makes_room_for_a_new_one(place, harm):
    write(place)
    path = place / "rows" / ("manifest.json" if harm == "manifest" else "0003.bin")
    content = path.read_bytes()
    path.unlink()
    if harm != "gone":
        path.write_bytes(content[:-4] if harm == "cut" else content[:-1] + b"\xff")
    assert open_store(place, "rows", memory=MEMORY) is None
    write(place)
    assert open_store(place, "rows", memory=MEMORY)["filled"].sum() == 28
    slower = write(place, value=1.0)  # the faster of two writers stays
    assert slower["filled"].sum() == 28
    assert os.listdir(place) == ["rows"]


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_what_is_not_finished_is_removed(place, error, is_kept):
    def write_half():
        with create_store(place if is_kept else None, "rows", memory=MEMORY) as writer:
            writer.append("item", np.arange(3))
            writer.allocate("filled", (2,), np.int8)
            if error is not None:
                raise error

    if error is None:
        write_half()
    else:
        with pytest.raises(error):
            write_half()
    assert not os.listdir(place)


def test_a_temporary_folder_goes_with_its_last_array(place):
    store = write(None)
    rows = store["item"][1:3]
    copy = pickle.loads(pickle.dumps(store))
    del store
    gc.collect()
    assert len(os.listdir(place)) == 1
    assert copy["item"].tolist() == [0, 1, 2, 3, 4]
    part = np.asarray(rows)[:1]
    del rows
    gc.collect()
    assert len(os.listdir(place)) == 1
    del part
    gc.collect()
    assert not os.listdir(place)
    with pytest.raises(FileNotFoundError, match=r"and it is gone\. Scan and attach again"):
        copy["item"]
