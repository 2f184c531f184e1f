"""Clients of a server in this process, and the events that they post."""

import warnings

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="the extra [dev] is not installed")
with warnings.catch_warnings(action="ignore"):  # starlette would rather have httpx2
    from fastapi.testclient import TestClient

from sklearn_din.server.app import create_app

__all__ = ["JSON", "TestClient", "create_app", "event", "items_of", "post"]
JSON = {"Content-Type": "application/json"}


def event(user, item, when="2024-03-04T00:00:00", **others):
    text = when.isoformat() if hasattr(when, "isoformat") else when
    return {"user": user, "item": item, "category": 1, "time": text, **others}


def post(client, *events):
    answer = client.post("/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.json()
    return answer.json()["added"]


def items_of(state, user):
    return state.answers.histories.of(user)[0]["hist_item"]
