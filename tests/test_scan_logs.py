"""Histories, aggregates and negatives of scans: what the same tables give in memory."""

import errno
import inspect

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sklearn_din import AttachedScan, attach_aggregates, attach_history, sample_negatives
from sklearn_din.large import sql
from sklearn_din.logs import aggregates as logs_aggregates
from sklearn_din.logs.other_items import STRATEGIES
from tests.click_frames import make_table
from tests.tables import as_scan, lists, read, read_in_pieces
from tests.test_faults import small_disk
from tests.test_history import slow_items

WAYS = {"user": "user", "time": "time", "columns": ["item", "category", "price"]}
BUDGETS = ["1GB", "25KB"]
N_OF_USER = {"n": ("user", None, "count")}

pytestmark = [pytest.mark.usefixtures("one_database"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def sorted_rows_in_small_batches(request, monkeypatch):
    """With the small budget, what DuckDB sorts comes in batches that cut through keys."""
    if getattr(request.node, "callspec", None) is None:
        return
    if request.node.callspec.params.get("memory") in ("25KB", "200KB"):
        read_in_pieces(monkeypatch, 7)


def same_cells(ours, twin):
    ours, twin = list(ours), list(twin)
    assert len(ours) == len(twin)
    for mine, its in zip(ours, twin, strict=True):
        assert mine.dtype == its.dtype
        missing = pd.isna(its)
        assert (pd.isna(mine) == missing).all()
        assert (mine[~missing] == its[~missing]).all()


CODES = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
KEYS = {
    "int8": lambda keys: keys.astype("int8"),
    "uint64 beyond int64": lambda keys: keys.astype("uint64") + np.uint64(2**63),
    "Int64 with missing": lambda keys: keys.astype("Int64").mask(keys == 3),
    "floats with NaN": lambda keys: (keys / 2).mask(keys == 3),
    "booleans": lambda keys: keys > 4,
    "text": lambda keys: ("Ä" + keys.astype(str)).mask(keys == 3, "").mask(keys == 4),
    "categories": lambda keys: ("u" + keys.astype(str)).mask(keys == 3).astype("category"),
    "numbers as categories": lambda keys: keys.astype("category"),
    "objects": lambda keys: keys.astype(object).mask(keys == 3, None),
    "Arrow text": lambda keys: ("u" + keys.astype(str)).astype("string[pyarrow]"),
    "Arrow codes": lambda keys: ("u" + keys.astype(str)).astype(CODES),
}


@pytest.mark.parametrize(
    ("kind", "memory"), [(kind, BUDGETS[n % 2]) for n, kind in enumerate(KEYS)]
)
def test_keys_of_every_kind_meet_as_in_a_plain_loop(tmp_path, kind, memory):
    shown, events = make_table(60, random_state=0), make_table(90, random_state=1)
    for table in (shown, events):
        table["user"] = KEYS[kind](table["user"] % 9)
        table["time"] //= 9
    expected = slow_items(shown, events, max_length=4, max_age=9)
    assert max(map(len, expected)) == 4
    options = {"user": "user", "time": "time", "columns": "item", "max_length": 4, "max_age": 9}
    scans = [as_scan(table, tmp_path, memory=memory) for table in (shown, events)]
    as_objects = shown.astype({"user": object})
    for tables in ((shown, events), (as_objects, events), (shown, scans[1]), scans):
        assert lists(attach_history(*tables, **options)["hist_item"]) == expected


UNITS = ["s", "ms", "us", "ns"]
WINTER, SUMMER = (None, "1969-12-31 23:59:30"), ("Europe/Berlin", "2024-03-31")


@pytest.mark.parametrize(
    ("units", "zone", "start"),
    [((a, b), *(WINTER, SUMMER)[(i + j) % 2]) for i, a in enumerate(UNITS)
     for j, b in enumerate(UNITS)],
)  # fmt: skip
def test_times_of_every_unit_meet_as_in_a_plain_loop(tmp_path, units, zone, start):
    tables = [make_table(40, random_state=0), make_table(60, random_state=1)]
    for table, unit in zip(tables, units, strict=True):
        table["user"] %= 3
        times = pd.Timestamp(start) + pd.to_timedelta(table["time"] * 250, unit="ms")
        table["time"] = times.dt.as_unit(unit).dt.tz_localize(zone)
    age = pd.Timedelta("7s")
    expected = slow_items(*tables, max_length=5, max_age=age)
    scans = [as_scan(table, tmp_path) for table in tables]
    options = {"user": "user", "time": "time", "columns": "item", "max_length": 5, "max_age": age}
    for first, second in (tables, scans, (tables[0], scans[1]), (scans[0], tables[1])):
        assert lists(attach_history(first, second, **options)["hist_item"]) == expected


@pytest.mark.parametrize("memory", BUDGETS)
def test_dates_of_a_file_order_events_and_all_columns_are_windows_of_one_log(tmp_path, memory):
    tables = make_table(60, random_state=0), make_table(90, random_state=1)
    tables = [table.assign(user=table["user"] % 9, time=table["time"] // 9) for table in tables]
    days = [t.assign(time=pd.to_datetime(t["time"], unit="D").dt.date) for t in tables]
    options = WAYS | {"max_length": 5, "max_age": "9D", "elapsed": "ago"}
    ours = attach_history(*(as_scan(t, tmp_path, memory=memory) for t in days), **options)
    assert isinstance(ours, AttachedScan)
    rows, names = read(ours), ["hist_item", "hist_category", "hist_price", "ago"]
    twin = attach_history(*tables, **options | {"max_age": 9})
    assert lists(rows["hist_item"]) == slow_items(*tables, max_length=5, max_age=9)
    for name in names[:3]:
        same_cells(rows[name], twin[name])
    assert lists(rows["ago"]) == [[86_400 * day for day in cell] for cell in twin["ago"]]
    assert rows[names].dtypes.map(repr).eq("WindowDtype()").all()
    assert rows["hist_item"].array.fingerprint == rows["ago"].array.fingerprint


def test_windows_do_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    table = make_table(60_000, random_state=0)
    table["time"] //= 100  # many events of one user at one time
    scan = as_scan(table, tmp_path, group=10_000)
    found = []
    for threads in ("1", "4", "4", "all"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        attached = attach_history(scan, scan, max_length=3, **WAYS)
        store = attached._histories.store
        found.append([store[name].tolist() for name in [*store.entries][:2]])
        found[-1] += [store["starts"].tolist(), store["lengths"].tolist()]
    assert all(windows == found[0] for windows in found)


@pytest.mark.parametrize(
    ("memory", "one_user"),
    [("25KB", True), ("1GB", False)],  # who has nearly all events
)
def test_a_log_that_is_its_own_impressions_and_equal_times(tmp_path, memory, one_user):
    table = make_table(200, random_state=2)
    table["time"] //= 30  # many events of one user at one time
    if one_user:
        table["user"] = table["user"].where(table.index % 50 == 0, 7)
    scan = as_scan(table, tmp_path, memory=memory)
    ours = attach_history(scan, scan, max_length=9, **WAYS)
    twin = attach_history(table, table, max_length=9, **WAYS)
    same_cells(ours["hist_item"], twin["hist_item"])
    same_cells(ours["hist_price"], twin["hist_price"])
    other = attach_history(as_scan(table, tmp_path), table, max_length=9, **WAYS)
    both = pd.concat([ours["hist_item"], other["hist_item"]], ignore_index=True)
    same_cells(both, pd.concat([twin["hist_item"]] * 2))  # logs in two orders are told apart
    empty = as_scan(table.iloc[:0], tmp_path)
    assert [len(cell) for cell in attach_history(scan, empty, **WAYS)["hist_item"]] == [0] * 200
    nothing = attach_history(empty, scan, elapsed="ago", **WAYS)
    assert len(nothing) == len(nothing["ago"]) == 0
    numbers = N_OF_USER | {name: ("user", "price", name) for name in ("mean", "shrunk_rate")}
    counted = attach_aggregates(scan, empty, time="time", aggregates=numbers)
    assert counted["n"].tolist() == [0] * 200
    assert read(counted)[["mean", "shrunk_rate"]].isna().all(axis=None)


def test_a_cache_dir_keeps_the_files_and_a_second_call_reads_them(tmp_path, monkeypatch):
    table = make_table(300, random_state=7)
    cache = tmp_path / "cache"
    scan = as_scan(table, tmp_path, cache_dir=cache)
    first = attach_history(scan, scan, **WAYS)
    assert first[:9].cache_dir == cache
    counted = attach_aggregates(first, scan, time="time", aggregates=N_OF_USER)
    kept = sorted(path.name.split("-")[0] for path in cache.iterdir())
    assert kept == ["aggregates", "history"]
    monkeypatch.setattr(sql, "sort_rows", None)  # nothing is sorted again
    again = attach_history(scan, scan, **WAYS)
    assert again.fingerprint() == first.fingerprint()
    same_cells(again["hist_category"], first["hist_category"])
    recounted = attach_aggregates(again, scan, time="time", aggregates=N_OF_USER)
    assert recounted["n"].tolist() == counted["n"].tolist()
    with pytest.raises(TypeError):
        attach_history(scan, scan, max_length=3, **WAYS)
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == kept


def test_histories_and_aggregates_lie_on_each_other(tmp_path):
    table = make_table(160, random_state=8)
    scan = as_scan(table, tmp_path, memory="25KB")
    ours = attach_history(scan, scan, user="user", time="time", columns="item")
    ours = attach_aggregates(ours[::-1], scan, time="time", aggregates=N_OF_USER)
    others = {"columns": "price", "prefix": "past_", "elapsed": "ago"}
    ours = attach_history(ours[::-1], scan, user="user", time="time", **others)
    twin = attach_history(table, table, user="user", time="time", columns=["item", "price"])
    same_cells(ours["hist_item"], twin["hist_item"])
    same_cells(ours["past_price"], twin["hist_price"])
    lengths = twin["hist_item"].array.lengths
    rows = ours[10:90]
    assert rows.find_log(["item"]) is None
    assert rows.find_log(["hist_item", "past_price"]) is None
    for name in ("hist_item", "past_price", "ago"):
        log, numbers = rows.find_log([name])
        spans = log.spans(numbers)
        assert spans.lengths.tolist() == lengths[10:90].tolist()
        values = log.take(name, slice(None))[0][spans.index()]
        if name == log.clock:
            values = np.repeat(log.row_times(numbers), spans.lengths) - values
        assert values.tolist() == rows[name].array.flatten().tolist()


@pytest.mark.parametrize(("option", "times"), [
    ({"launched": True}, "floats"),
    ({"launched": False}, "dates"),
    ({"launched": "auto"}, "numbers"),
    ({"catalogue": ["item", "tag"]}, "dates"),
    ({"catalogue": ["item", "tag"], "launched": True}, "numbers"),
    *(({"catalogue": ["item", "tag", "since"], "catalogue_time": "since", **launched}, times)
      for times in ("numbers", "floats", "dates") for launched in ({}, {"launched": False})),
    ({"catalogue": ["item", "tag"], "time": None}, "dates"),
    ({"catalogue": ["item", "tag"], "time": None, "user": None}, "numbers"),
    ({"item_columns": ["item", "tag"]}, "floats"),
])  # fmt: skip
def test_negatives_of_scans_and_of_frames_are_drawn_of_the_same_items(tmp_path, option, times):
    chance = np.random.default_rng(0)
    events = pd.DataFrame({"time": chance.permutation(60) // 2 * 60_000})
    events["item"] = chance.integers(0, 2 + events["time"] // 180_000)
    events["user"], events["tag"] = chance.integers(0, 12, size=60), np.arange(60) // 20
    listed = pd.DataFrame({"item": range(20), "tag": -1})
    listed["since"] = listed["item"] // 2 * 180_000 + 1000
    if times == "dates":  # a coarser unit in the events, a finer one in the catalogue
        events["time"] = events["time"].astype("datetime64[ms]").astype("datetime64[s]")
        listed["since"] = listed["since"].astype("datetime64[ms]")
    if times == "floats":
        events["time"] = events["time"] / 4
        listed["since"] = listed["since"] / 4
    options = {"item": "item", "item_columns": ["tag"], "user": "user", "n_negatives": 200}
    options |= {"time": "time", "random_state": 0}
    if "catalogue" in option:
        option = option | {"catalogue": listed[option["catalogue"]]}
    twin, _ = sample_negatives(events, **options | option)
    if "catalogue" in option and times == "dates":
        option["catalogue"] = as_scan(option["catalogue"], tmp_path)
    ours = read(sample_negatives(as_scan(events, tmp_path), **options | option)[0])
    for start in range(0, len(twin), 201):
        drawn = [rows[start : start + 201][["item", "tag"]].to_numpy() for rows in (ours, twin)]
        assert {*map(tuple, drawn[0].tolist())} == {*map(tuple, drawn[1].tolist())}, start


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_negatives_depend_on_the_seed_alone(tmp_path, monkeypatch, strategy):
    events = make_table(600, random_state=9, users="text").dropna()
    events["item"] = events["item"] ** 2 // 90
    events = events.drop_duplicates(["user", "item"])
    options = {"item": "item", "user": "user", "n_negatives": 4, "strategy": strategy}
    options |= {"item_columns": ["category"], "random_state": 0, "launched": False}
    drawn = []
    for size in (10_000, 50, 7):
        read_in_pieces(monkeypatch, size)
        scan = as_scan(events, tmp_path, group=600 // size + 20)
        impressions, _ = sample_negatives(scan, time="time", **options)
        drawn.append(impressions["item"].tolist())
    assert drawn[0] == drawn[1] == drawn[2]
    twin, y = sample_negatives(events, time="time", **options)
    negatives = [pd.Series(items)[y == 0] for items in (drawn[0], twin["item"])]
    shares = [items.value_counts(normalize=True) for items in negatives]
    assert shares[0].sub(shares[1], fill_value=0).abs().sum() < 0.3


OPTIONS = {  # each with a value that changes the result
    attach_history: {
        **{"user": "item", "time": "price", "columns": "item", "max_length": 2, "max_age": 60},
        **{"prefix": "past_", "elapsed": "ago"},
    },
    attach_aggregates: {
        **{"user": "user", "time": "price"},
        "aggregates": {
            n: (() if "recent" in n else "user", None if n == "elapsed" else "bit", n)
            for n in logs_aggregates.STATISTICS if n != "means"  # of the same names
        },
        **{"label": "day", "levels": ["item", ("user", "item")], "known": "day"},
    },
    sample_negatives: {
        **{"item": "category", "item_columns": ["category"], "n_negatives": 2, "user": "user"},
        **{"time": "time", "strategy": "popularity", "launched": False, "random_state": 1},
        **{"catalogue": True, "catalogue_time": "time"},
    },
}  # fmt: skip
EACH_OPTION = [(attach, name) for attach in OPTIONS for name in OPTIONS[attach]]


@pytest.fixture(scope="module")
def optioned(tmp_path_factory):
    """Rows, a scan of them, and what has been made of either without an option."""
    rows = make_table(150, random_state=0).dropna().reset_index(drop=True)
    rows = rows.assign(bit=rows["item"] % 2, day=rows["time"] + 30)
    return rows, as_scan(rows, tmp_path_factory.mktemp("rows")), {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("attach", "option"), EACH_OPTION)
def test_every_option_of_a_log_does_for_scans_what_it_does_for_frames(optioned, attach, option):
    parameters = inspect.signature(attach).parameters.values()
    assert set(OPTIONS[attach]) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    rows, scan, made = optioned
    plain = {**WAYS, "item": "item", "aggregates": {"n": ("user", None, "count")}}
    plain = {name: value for name, value in plain.items() if name in OPTIONS[attach]}
    of_pairs = attach is attach_aggregates and option in ("user", "label", "levels")
    if of_pairs:
        plain = {"time": "time", "aggregates": "levels", "label": "bit"}
    if attach is sample_negatives:
        plain = {"item": "item", "random_state": 0}
        needs = {"launched": ["time"], "catalogue_time": ["time", "catalogue"]}
        plain |= {name: OPTIONS[attach][name] for name in needs.get(option, ())}
    listed = make_table(30, random_state=1).dropna().assign(item=range(85, 85 + 27))

    def result(source, options):
        if options.get("catalogue") is True:
            options = {**options, "catalogue": listed}
        shown = source[[*WAYS["columns"], "user", "time"]] if of_pairs else source
        new = attach(*([source] if attach is sample_negatives else [shown, source]), **options)
        new = new[0] if isinstance(new, tuple) else new
        table = read(new) if source is not rows else new
        return table.map(lambda cell: tuple(cell) if isinstance(cell, np.ndarray) else cell)

    changed = []
    for source in (rows, scan):
        key = attach, repr(plain), source is scan
        made[key] = result(source, plain) if key not in made else made[key]
        changed.append(result(source, {**plain, option: OPTIONS[attach][option]}))
        assert not changed[-1].equals(made[key])
    if attach is not sample_negatives:  # which draw on their own
        pd.testing.assert_frame_equal(*changed, check_dtype=False)


def test_a_full_disk_leaves_nothing(tmp_path):
    table = make_table(2000, random_state=0)
    cache = tmp_path / "cache"
    scan = as_scan(table, tmp_path, cache_dir=cache)
    with small_disk():
        for call in (
            lambda: attach_history(scan, scan, **WAYS),
            lambda: attach_aggregates(scan, scan, time="time", aggregates=N_OF_USER),
            lambda: sample_negatives(scan, item="item", item_columns="category", user="user"),
        ):
            with pytest.raises(OSError, match="Free some of the disk") as found:
                call()
            assert found.value.errno == errno.EFBIG
            assert list(cache.iterdir()) == []


def test_a_file_that_changes_is_named(tmp_path):
    table = make_table(200, random_state=0)
    scan = as_scan(table, tmp_path, cache_dir=tmp_path / "cache")
    ours = attach_history(scan, scan, **WAYS)
    store = ours._histories.store
    starts = store.path / store.entries["starts"]["file"]
    starts.write_bytes(b"short")
    with pytest.raises(FileNotFoundError, match=r"must have 1600 bytes .*, and it has 5"):
        ours["hist_item"]
    again = attach_history(scan, scan, **WAYS)  # what is not whole is written again
    same_cells(again["hist_item"], attach_history(table, table, **WAYS)["hist_item"])
    table.iloc[:9].to_parquet(tmp_path / "0.parquet")
    with pytest.raises(OSError, match="was changed after scan_parquet"):
        attach_history(scan, scan, max_length=2, **WAYS)
    assert len(list((tmp_path / "cache").iterdir())) == 1
