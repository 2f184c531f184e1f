"""The server: routes, bad input, histories that grow, files that are replaced, what is logged."""

import json
import logging
import re
import signal
import socket
import threading
import time
import urllib.request

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from sklearn_din import DINRegressor, attach_history, export_onnx, rank_candidates, save
from sklearn_din import load as load_model
from sklearn_din.__main__ import main
from sklearn_din.command_line import serving
from sklearn_din.command_line.options import read_serve_options
from sklearn_din.command_line.serving import load_answers
from sklearn_din.server.answers import Answers
from sklearn_din.server.connections import MAX_BODY
from sklearn_din.server.items import Items
from sklearn_din.server.state import State
from tests import abilities
from tests.fitted_pipelines import make_model
from tests.page_server import start_server
from tests.posted_events import JSON, TestClient, create_app, event
from tests.served_model import fit_served, make_served, wait_for, write_served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return folder, *write_served(folder)


def load(folder, *options, model="model.din"):
    arguments = [str(folder / model), "--catalogue", str(folder / "items.parquet"), *options]
    return load_answers(read_serve_options(arguments))


@pytest.fixture(scope="module")
def state(served):
    return State(lambda: load(served[0], "--title", "title"))


@pytest.fixture(scope="module")
def client(state):
    with TestClient(create_app(state)) as client:
        yield client


def test_an_id_is_ranked_as_its_row_with_its_history(served, client):
    _, model, catalogue, clicks = served
    user = int(clicks["user"].iloc[0])
    now = clicks["time"].max() + pd.Timedelta(1, unit="s")
    row = clicks.drop_duplicates("user", keep="last").query("user == @user").assign(time=now)
    row = row.drop(columns=["item", "category"])
    of_items = catalogue[["item", "category"]]
    expected = rank_candidates(model, row, of_items, top_k=5)
    device = row["device"].iloc[0]
    got = client.post("/rank", json={"user": {"user": user, "device": device}, "top_k": 5}).json()
    assert got["items"] == expected["item"].tolist()
    np.testing.assert_allclose(got["probabilities"], expected["probability"], atol=1e-6)


def test_a_history_that_has_rows_without_a_click_is_said(served):
    _, model, catalogue, clicks = served
    with pytest.warns(
        UserWarning, match=r"of which the model remembers \d+ as clicks.*history\['clicked'\]"
    ):
        Answers(model, catalogue, make_served()[1])
    later = [clicks.assign(time=clicks["time"] + pd.Timedelta(n, unit="W")) for n in (100, 200)]
    Answers(model, catalogue, pd.concat([clicks, *later]))  # a log that has grown is none


def test_items_that_were_chosen_and_histories_that_are_given(served, client):
    items = served[2]["item"].tolist()
    user = {"device": "phone", "hist_item": items[:3], "hist_category": [1, 2, 3]}
    got = client.post("/rank", json={"user": user, "items": [*items[5:9], 10**6]}).json()
    assert sorted(got["items"]) == sorted(items[5:9])  # what no catalogue has is left out
    without = {"user": user, "items": items[:5], "exclude": "history"}
    assert sorted(client.post("/rank", json=without).json()["items"]) == sorted(items[3:5])


def soon(state, **later):
    """A moment after the log's newest event, as text."""
    newest = state.answers.histories.clock.newest
    return (pd.Timestamp(newest) + pd.Timedelta(**(later or {"seconds": 5}))).isoformat()


@pytest.mark.parametrize(("route", "body", "sentence"), [
    ("rank", {"user": "7"}, r"user must be integers, such as \d+, got '7': text"),
    ("rank", {"user": 7, "items": ["3"]}, r"items must be integers.* without quotes"),
    ("rank", {"user": 7, "items": [10**6]}, "no item of the request is in the catalogue"),
    ("rank", {"user": {"device": "phone"}}, "columns .*hist_item.* neither in users nor in"),
    ("rank", {"user": {"hist_item": 3, "hist_category": 3, "device": ""}}, "one history per"),
    ("rank", {"user": {"hist_item": [1] * 1001}}, "may have 1000 events, got 1001"),
    ("rank", {"user": 7, "top_k": 0}, "top_k: .*greater than or equal to 1"),
    ("rank", {"user": 7, "items": [1] * 10_001}, "items: .*at most 10000"),
    ("rank", {}, "user: Field required. Examples are at /docs"),
    ("rank", [], "the body: "),
    ("predict", {"rows": [{"item": 1}]}, "a row must have the keys .*got none of"),
    ("predict", {"rows": []}, "rows: .*at least 1"),
    ("events", {"events": [{"user": 7}]}, "an event must have the keys .*got none of"),
    ("events", {"events": [event("7", 1, "2025-01-01")]}, "user must be integers"),
    ("events", {"events": [event(7, 1, "soon")]}, "time must be a date as text .* ISO 8601"),
    ("events", {"events": [event(7, 1, "2024-02-30")]}, "time must be a date as text"),
    ("events", {"events": [event(7, 1, "2262-04-11T23:47:16.8")]}, "at the latest, got"),
    ("events", {"events": [event(7, 1, "2024-01-01") | {"clicked": 1}]}, "got 'clicked' too"),
    ("events", {"events": [event(7, 1, "2024-01-01") | {"event_id": [1]}]}, "event_id must be"),
    ("events", {"events": [event(None, 1, "2025-01-01")]}, "have a value for user, got null"),
    ("events", {"events": [{"user": 7, "item": 987654, "time": "2024-01-01"}]},
     r"item 987654 is not in the catalogue, so that an event of it must have the keys \['cat"),
    ("events", {"events": [event(7, 1, "2024-01-01") | {"label": 2}]}, "label must be 1, or 0"),
    ("events", {"events": [event(7, 1, "2024-01-01") | {"device": 1}]}, "device must be text"),
    ("events", {"events": [event(7, 10**30, "2025-01-01")]}, "item must be integers of 64 b"),
    ("rank", {"user": {"devise": "phone"}}, "got 'devise' too. Is it 'device', misspelt"),
    ("rank", {"user": {"user": 7, "time": "yesterday"}}, "got 'time' too"),
    ("rank", {"user": {"device": True}}, "device got true or false, which are neither 1 nor 0"),
    ("rank", {"user": {"hist_item": [1, True]}}, "hist_item got true or false"),
    ("rank", {"user": 7, "top_k": True}, "top_k: Input should be a valid integer"),
    ("page/rank", {"events": [], "exclud": True}, "exclud: Extra inputs are not permitted"),
    ("page/rank", {"events": [{"itm": 3}]}, "got 'itm' too. Is it 'item', misspelt"),
    ("page/why", {"events": [], "context": {"devise": "web"}, "item": 12}, "got 'devise' too"),
    ("rank", {"user": 7, "exclude": ["3"]}, "exclude must be integers"),
    ("predict", {"rows": [{"item": 1, "clicked": 1}]}, "got 'clicked' too"),
])  # fmt: skip
def test_bad_input_is_told(client, route, body, sentence):
    answer = client.post(f"/{route}", json=body)
    assert answer.status_code == 422
    assert re.search(sentence, answer.json()["detail"]), answer.json()


def test_sizes_and_kinds_of_bodies_are_limited(client):
    assert client.post("/rank", content=b" " * (MAX_BODY + 1), headers=JSON).status_code == 413
    assert client.post("/rank", content=b"{}", headers={"Content-Type": "text/plain"}
                       ).status_code == 415  # fmt: skip
    assert client.post("/rank", content=b"{", headers=JSON).status_code == 422
    assert client.post("/rank", content=b"[" * 10_000, headers=JSON).status_code in (400, 422)
    numbers = b'{"user": {"device": "phone", "hist_item": [1e400], "hist_category": [NaN]}}'
    assert client.post("/rank", content=numbers, headers=JSON).status_code in (200, 422)


@pytest.mark.parametrize(
    "body",
    ['{"user": "zoë \\u00e9"}'.encode("latin-1"), '{"user": "a"}'.encode("utf-16"),
     '{"user": "a"}'.encode("utf-16-le"), '{"user": "a"}'.encode("utf-32-be"),
     b'{"user": "\\u00e9", "top_k": %s}' % (b"9" * 5_000), b'{"user": %s}' % (b"9" * 5_000)],
)  # fmt: skip
def test_bodies_that_are_no_utf_8_or_hold_no_number_are_400(client, body):
    for route in ("rank", "events"):
        assert client.post(f"/{route}", content=body, headers=JSON).status_code == 400


def test_the_first_row_of_an_item_counts_and_one_without_a_title_has_its_id():
    names = pd.Series(["hat", None, "other", " "], dtype="category")
    frame = pd.DataFrame({"item": [1, 2, 1, 3], "name": names})
    items = Items(frame, "item", title="name")
    assert [items.show(row)["title"] for row in range(3)] == ["hat", "2", "3"]


def test_nothing_of_a_request_is_logged_but_its_size_and_time(client, state, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's
    secret = {"user": {"secret": "hush"}, "items": ["hush"]}
    client.post("/rank?hush=hush", json=secret)
    client.get("/hush")
    monkeypatch.setattr(state.answers, "best", lambda *_: {}["hush"])
    answer = client.post("/rank", json={"user": 7})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the server failed. Its log says where."}
    assert "KeyError in " in caplog.text
    assert "/rank 422, " in caplog.text
    assert "hush" not in caplog.text


def test_health_metrics_and_the_description_know_the_model(served):
    with TestClient(create_app(State(lambda: load(served[0])))) as client:
        health = client.get("/health").json()
        assert (health["status"], health["problem"], health["now"]) == ("ok", None, "newest event")
        posted = health["posted"]
        assert 0 < posted.pop("bytes") < 100_000
        assert 0 <= posted.pop("seconds_behind") < 30
        assert posted.pop("erased") in (True, False)
        expected = {
            "in": "memory",
            "bytes_at_most": 64_000_000,
            "left_out": 0,
            "without_a_value": 0,
        }
        assert posted == expected | {"not_logged": 0, "problem": None}
        assert health["items"] == len(served[2])
        client.post("/rank", json={"user": 7})
        metrics = client.get("/metrics").text
        assert 'sklearn_din_requests_total{route="/rank",status="200"} 1.0' in metrics
        own = ("events", "failed_loads", "waiting_requests", "posted_bytes")
        for name in ("process_resident_memory_bytes", *(f"sklearn_din_{name}" for name in own)):
            assert f"\n{name}" in metrics
        assert client.get("/ready").json() == {"ready": True}
        assert f'sklearn_din_model{{digest="{health["model"]}"}} 1.0' in metrics
        answered = client.post("/rank", json={"user": 7})
        assert answered.headers["model-digest"] == health["model"]
        assert answered.headers["cross-origin-resource-policy"] == "same-origin"
        assert answered.headers["cache-control"] == "no-store"
        described = client.get("/openapi.json").json()
        schemas = described["components"]["schemas"]
        assert {*described["paths"]["/events"]["post"]["responses"]} == {
            "200",
            "401",
            "404",
            "422",
            "503",
            "507",
        }
        columns = schemas["RankRequest"]["properties"]["user"]["x-columns"]
        assert columns == ["device", "hist_item", "hist_category"]
        item, top_k = described["paths"]["/similar"]["get"]["parameters"]
        assert client.get(f"/similar?item={item['example']}").status_code == 200
        assert item["description"]
        assert top_k["description"]
        for name in ("Rank", "Predict", "Events"):
            example = schemas[f"{name}Request"]["example"]
            assert client.post(f"/{name.lower()}", json=example).status_code == 200


def test_a_replaced_file_is_served_and_each_answer_is_one_models(served, tmp_path):
    _, old, catalogue, _ = served
    for name in ("model.din", "items.parquet"):
        (tmp_path / name).write_bytes((served[0] / name).read_bytes())
    new, _ = fit_served(seed=1)
    user = {"device": "phone", "hist_item": [1, 2], "hist_category": [1, 2]}
    frame = pd.DataFrame([user] * len(catalogue)).assign(**catalogue[["item", "category"]])
    right = [np.sort(m[1:].predict_proba(frame)[:, 1])[::-1] for m in (old, new)]
    state = State(lambda: load(tmp_path), [tmp_path / "model.din"])
    with TestClient(create_app(state)) as client:
        client.post("/events", json={"events": [event(7, 12, soon(state))]})
        seen, is_over = [], threading.Event()

        def ask():
            while not is_over.is_set():
                answer = client.post("/rank", json={"user": user, "top_k": 100})
                seen.append(answer.json()["probabilities"])

        asking = threading.Thread(target=ask)
        asking.start()
        save(new, tmp_path / "model.din")
        first = state.answers
        wait_for(lambda: state.answers is not first, seconds=60)
        time.sleep(0.2)
        is_over.set()
        asking.join()
        which = [[np.allclose(got, model, atol=1e-6) for model in right] for got in seen]
        assert all(map(any, which))
        assert which[0] == [True, False]
        assert which[-1] == [False, True]
        assert state.answers.histories.of(7)[0]["hist_item"][-1] == 12  # the click is still there
        (tmp_path / "model.din").write_bytes(b"no model")
        state.reload()
        assert client.get("/health").json()["status"] == "old model"
        assert client.post("/rank", json={"user": user}).status_code == 200


def fit_kind(kind):
    """A Pipeline of one kind, and what else its answers need."""
    options = {"max_epochs": 1, "random_state": 0}
    model, shown, y = make_served()
    clicks = shown[y == 1]
    model.set_params(encode__position=None)
    if kind == "regressor":
        model.set_params(din=DINRegressor(**options), history__events="all")
    if kind == "elapsed":
        model.set_params(history__elapsed="ago")
    if kind == "labels":
        labels = pd.DataFrame({"click": y, "buy": y * (np.arange(len(y)) % 3 == 0)})
        return model.fit(shown, labels), {"label": "buy"}
    if kind == "no builder":
        X = attach_history(shown, clicks, user="user", time="time", columns=["item", "category"])
        return model[1:].fit(X, y), {"history": clicks}
    model.fit(shown, y)
    if kind == "calibrated":
        model = CalibratedClassifierCV(FrozenEstimator(model)).fit(shown, y)
    return model, {}


def test_the_page_hides_what_was_had_and_drifts_that_users_choose(client, served):
    about = client.get("/page/about").json()
    assert about["users_return"] is False
    assert about["digest"] is None
    shifts = {row["column"]: row["shift"] for row in client.get("/page/report").json()["columns"]}
    assert shifts["item"] is None is shifts["category"]
    assert shifts["hist_item"] is not None
    _, model, catalogue, clicks = served
    later = clicks.assign(time=clicks["time"] + pd.Timedelta(1, unit="s"))
    answers = Answers(model, catalogue, pd.concat([clicks, later]))
    assert answers.histories.users_return_to("item")
    assert not answers.histories.users_return_to("price")


@pytest.mark.parametrize("kind", ["regressor", "elapsed", "labels", "no builder", "calibrated"])
def test_every_kind_of_model_answers_the_same_on_each_way(kind, served):
    """By the id, by the events that the page shows, and row by row."""
    model, options = fit_kind(kind)
    answers = Answers(model, served[2], **options)
    with TestClient(create_app(State(lambda: answers))) as client:
        best = client.post("/rank", json={"user": 7}).json()
        user = client.post("/page/user", json={"user": "7"}).json()
        strip = {"events": [e["event"] for e in user["events"]], "context": user["context"]}
        shown = client.post("/page/rank", json=strip).json()["best"]
        rows = [{"user": 7, "item": item} for item in best["items"]]
        predicted = client.post("/predict", json={"rows": rows}).json()
        why = client.post("/page/why", json={**strip, "item": best["items"][0]}).json()
    assert [b["item"] for b in shown] == best["items"]
    numbers = best["predictions" if kind == "regressor" else "probabilities"]
    np.testing.assert_allclose([b["number"] for b in shown], numbers, atol=1e-3)  # "ago" is nearly
    np.testing.assert_allclose(next(iter(predicted.values())), numbers, atol=1e-5)
    assert len(why["weight"]) == len(strip["events"])
    assert why["effect"] is None if kind == "labels" else len(why["effect"]) == len(why["weight"])


@pytest.mark.filterwarnings("ignore:exclude leaves no candidate")
def test_an_onnx_file_answers_as_the_pipeline(served, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder, model, _, _ = served
    export_onnx(model[1:], tmp_path / "model.onnx", layout="ranking")
    (tmp_path / "items.parquet").write_bytes((folder / "items.parquet").read_bytes())
    options = ["--title", "title", "--history", str(folder / "log.parquet")]
    answers, own = load(tmp_path, *options, model="model.onnx"), load(folder, *options)
    user = {"device": "phone", "hist_item": [1, 2], "hist_category": [1, 2]}
    for exclude in (None, "history"):
        got, expected = (a.rank(user, None, 5, exclude) for a in (answers, own))
        assert got["items"] == expected["items"]
        np.testing.assert_allclose(got["probabilities"], expected["probabilities"], atol=1e-5)
    ids = answers.items.ids
    everything = {**user, "hist_item": ids, "hist_category": [1] * len(ids)}
    for by in (answers, own):
        with pytest.raises(ValueError, match="the user's history has every item"):
            by.rank(everything, None, 5, "history")
    rows = [{**user, "item": answers.items.ids[0]}]
    got, expected = (a.predict(rows)["probabilities"] for a in (answers, own))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got, expected = (a.reasons(a.read_user(7), 3) for a in (answers, own))
    assert len(got["weight"]) > 3
    for name in ("weight", "effect"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)
    event = {"user": 7, "item": ids[0], "time": answers.histories.example()["time"]}
    for by in (answers, own):
        n_before = by.histories.n_events
        by.histories.add([(1, *by.histories.read(by.fill_events([event])))])
        assert by.histories.n_events == n_before + 1
    assert answers.rank(7, None, 5, None)["items"] == own.rank(7, None, 5, None)["items"]
    assert repr(answers.training) == repr(own.training)  # NaN is NaN


def test_a_process_serves_until_a_signal_and_without_torch_where_it_can(served, tmp_path):
    pytest.importorskip("onnx")
    folder, model, _, _ = served
    (tmp_path / "items.parquet").write_bytes((folder / "items.parquet").read_bytes())
    export_onnx(model[1:], tmp_path / "model.onnx", layout="ranking")
    code = "import sys; from sklearn_din.__main__ import main; s = main(); "
    code += "print({'torch', 'skops', 'skorch'} & {*sys.modules}, flush=True); sys.exit(s)"
    history = "--history", folder / "log.parquet"
    child, port, _ = start_server(tmp_path / "model.onnx", *history, code=code)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            assert json.load(answer)["status"] == "ok"
        child.send_signal(signal.SIGTERM)
        out, errors = child.communicate(timeout=30)
    finally:
        child.kill()
    assert (child.returncode, out.strip()) == (0, "set()")
    assert "/health 200, 0 bytes" in errors


def test_the_main_job_ends_at_the_page(served, tmp_path, monkeypatch):
    clicks = served[3]
    clicks.to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.chdir(tmp_path)
    given = {}

    def run(state, options):
        given.update(state=state, host=options.host, port=options.port)

    monkeypatch.setattr(serving, "run", run)
    columns = ["--user", "user", "--item", "item", "--time", "time", "--context", "device"]
    main([str(tmp_path / "log.csv"), *columns, "--epochs", "1", "--folds", "2", "--serve", "8001",
          "--save", str(tmp_path / "model.din")])  # fmt: skip
    assert (given["host"], given["port"]) == ("127.0.0.1", 8001)
    answers = given["state"].answers
    bins, scores = answers.figures["calibration"], answers.figures["scores"]
    assert {"AUC", "GAUC"} <= {*scores["held-out users in 2 folds"]["DIN"]}
    assert load_model(tmp_path / "model.din").figures_ == answers.figures
    assert answers.histories.n_events == len(clicks) - 2  # when no other item was there
    assert sorted(answers.items.ids) == sorted(clicks["item"].unique())
    assert answers.read_user(7)["device"] == clicks[clicks["user"] == 7].iloc[-1]["device"]
    assert [b["predicted"] for b in bins] == sorted(b["predicted"] for b in bins)
    assert np.mean([b["observed"] for b in bins]) == pytest.approx(0.2, abs=0.02)  # 4 negatives
    given["state"].close()


def test_a_catalogue_may_have_lists_its_item_has_the_most_ids_and_other_items_are_told(served):
    X = abilities.FRAME
    model = make_model(abilities.make_encoder(), DINRegressor, max_epochs=1)
    catalogue = X[["genres", "film"]].drop_duplicates("film")[:1]
    assert Answers(model.fit(X, X["price"]), catalogue).items.item == "film"
    _, model, catalogue, _ = served
    with pytest.raises(ValueError, match=r"fitted on, 'item', got \['sku', 'category'"):
        Answers(model, catalogue.rename(columns={"item": "sku"}))
    with pytest.raises(ValueError, match=r"no item of the catalogue: 'item' has .* are ids text"):
        Answers(model, catalogue.assign(item=catalogue["item"].astype(str)))


def test_a_port_that_is_taken_is_one_line(served, capsys):
    folder = served[0]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["serve", str(folder / "model.din"), "--catalogue", str(folder / "items.parquet"),
              "--port", str(taken.getsockname()[1])])  # fmt: skip
    assert "Address already in use" in capsys.readouterr().err
