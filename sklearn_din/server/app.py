"""The web application: its routes, and its answers to bad input."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sklearn_din.server.guard import Guard
from sklearn_din.server.json_values import Values
from sklearn_din.server.page import add_page
from sklearn_din.server.state import State
from sklearn_din.utils.version import __version__

MAX_ITEMS, MAX_ROWS, MAX_TOP_K, MAX_CLICKS = 10_000, 1_000, 1_000, 1_000


class RankRequest(BaseModel):
    """A user, and the items that a retrieval step has chosen."""

    user: Values | str | int = Field(
        description="A value for each column of a user, histories as lists, the oldest event "
        "first; or the id of a user whose history the server knows."
    )
    items: list[str | int] | None = Field(
        None, max_length=MAX_ITEMS, description="Ids of the catalogue. Absent: all of it."
    )
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    exclude: Literal["history"] | None = Field(
        None, description='"history": without items that the user had.'
    )


class PredictRequest(BaseModel):
    """Rows, each with a user and an item."""

    rows: list[Values] = Field(min_length=1, max_length=MAX_ROWS)


class EventsRequest(BaseModel):
    """What users did: user, time and item; other columns of a history the catalogue has."""

    events: list[Values] = Field(min_length=1, max_length=MAX_CLICKS)


def create_app(
    state: State,
    *,
    token: str | None = None,
    hosts: Sequence[str] = (),
    calibration: list[dict[str, float]] | None = None,
) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    state : State
        What answers.
    token : str, default=None
        What ``/events`` asks for. None: nothing.
    hosts : list of str, default=()
        The only names by which the server may be asked. Empty: any.
    calibration : list of dict, default=None
        Mean probability ("predicted") and rate of clicks ("observed") of bins, for the page.
    """
    registry = CollectorRegistry()
    Gauge(
        "loaded_timestamp_seconds", "When the answers were loaded.", registry=registry
    ).set_function(lambda: state.loaded.timestamp())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.collect_notes()
        looking = asyncio.create_task(state.look_for_new_files())
        yield
        looking.cancel()
        state.close()

    app = FastAPI(
        title="sklearn-din", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])
    app.add_middleware(Guard, registry=registry)
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    app.add_exception_handler(ValueError, _say_our_sentence)
    app.add_exception_handler(TypeError, _say_our_sentence)

    @app.post("/rank", summary="The best items for a user")
    async def rank(request: RankRequest) -> Response:
        answers = state.answers
        asked = request.user, request.items, request.top_k, request.exclude
        return JSONResponse(await state.work(answers.rank, *asked))

    @app.post("/predict", summary="The probability of a click, row by row")
    async def predict(request: PredictRequest) -> Response:
        return JSONResponse(await state.work(state.answers.predict, request.rows))

    @app.post("/events", summary="Clicks join their users' histories")
    async def add_events(request: EventsRequest, authorization: str = Header("")) -> Response:
        if token is not None and not hmac.compare_digest(
            authorization.encode("latin-1"), f"Bearer {token}".encode()
        ):
            raise HTTPException(401, "/events needs the header Authorization: Bearer TOKEN.")
        return JSONResponse(await state.work(state.add, request.events))

    @app.get("/health", summary="Whether the server answers, and by what")
    async def health() -> Values:
        answers = state.answers
        return {
            "status": "ok" if state.failure is None else "old model",
            "loaded": state.loaded.isoformat(timespec="seconds"),
            "items": len(answers.items),
            "events": answers.histories and answers.histories.n_events,
            "failure": state.failure,
        }

    @app.get("/metrics", summary="Counts and times of requests, as Prometheus reads them")
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(registry))

    add_page(app, state, calibration)
    app.openapi = lambda: _describe(app, state)  # type: ignore[method-assign]
    return app


async def _say_what_is_wrong(request: Request, error: Exception) -> Response:
    """Answer a body of another form; what it held is not repeated."""
    problems = []
    for problem in error.errors() if isinstance(error, RequestValidationError) else ():
        where = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
        problems.append(f"{where}: {problem['msg']}")
    return JSONResponse({"detail": f"{'; '.join(problems)}. Examples are at /docs."}, 422)


async def _say_our_sentence(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


def _describe(app: FastAPI, state: State) -> Values:
    """Return the OpenAPI description, with the model's own columns and examples of now."""
    described = get_openapi(title=app.title, version=app.version, routes=app.routes)
    answers = state.answers
    user, item = answers.example_user(), answers.items.row(0)
    log = answers.histories
    events = [] if log is None else [log.example()]
    schemas, own = described["components"]["schemas"], answers.items.item
    ranked = {"user": user, "items": answers.items.ids[:3], "top_k": 2}
    schemas["RankRequest"]["example"] = ranked
    schemas["PredictRequest"]["example"] = {"rows": [{**user, own: item[own]}]}
    schemas["EventsRequest"]["example"] = {"events": events}
    schemas["RankRequest"]["properties"]["user"]["x-columns"] = answers.user_columns
    return described
