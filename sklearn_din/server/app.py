"""The web application: its routes, and its answers to bad input."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr
from starlette.convertors import StringConvertor, register_url_convertor

from sklearn_din.server.guard import Guard
from sklearn_din.server.json_values import Values
from sklearn_din.server.page import add_page
from sklearn_din.server.state import LOGGER, MOST_WAITING, BusyError, State, UnknownError
from sklearn_din.server.store import FullError, StoreError
from sklearn_din.utils.version import __version__

MAX_ITEMS, MAX_ROWS, MAX_TOP_K, MAX_CLICKS = 10_000, 1_000, 1_000, 1_000
SECONDS_OF_SILENCE = 60.0  # about an error of the event loop that has been logged
Id = StrictStr | StrictInt
STATUS_OF: dict[type[Exception], int] = {
    ValueError: 422,
    TypeError: 422,
    ImportError: 501,  # onnx, which /similar of an ONNX file needs
    UnknownError: 404,
    BusyError: 503,
    FullError: 507,
    StoreError: 503,
}


class AnyText(StringConvertor):
    """A part of a path: slashes and ends of lines, too."""

    regex = r"[\s\S]*"


register_url_convertor("any", AnyText())


class RankRequest(BaseModel, extra="forbid"):
    """A user, and the items that a retrieval step has chosen."""

    user: Values | Id = Field(
        description="A value for each column of a user, histories as lists, the oldest event "
        "first; or the id of a user whose history the server knows."
    )
    items: list[Id] | None = Field(
        None, max_length=MAX_ITEMS, description="Ids of the catalogue. Absent: all of it."
    )
    top_k: StrictInt = Field(10, ge=1, le=MAX_TOP_K, description="How many are returned.")
    exclude: Literal["history"] | list[Id] | None = Field(
        None, description='"history": without items that the user had; or ids to leave out.'
    )


class ExplainRequest(BaseModel, extra="forbid"):
    """A user beside an item of the catalogue."""

    user: Values | Id = Field(description="As of /rank.")
    item: Id


class SimilarRequest(BaseModel, extra="forbid"):
    """An item of the catalogue."""

    item: str = Field(description="Its id.")
    top_k: int = Field(10, ge=1, le=MAX_TOP_K, description="How many are returned.")


class PredictRequest(BaseModel, extra="forbid"):
    """Rows, each with a user and an item."""

    rows: list[Values] = Field(min_length=1, max_length=MAX_ROWS)


class EventsRequest(BaseModel, extra="forbid"):
    """What users did: user ("user" of /rank), time and item by the log's names; other columns."""

    events: list[Values] = Field(
        min_length=1,
        max_length=MAX_CLICKS,
        description='An "event_id" is optional: posts with the same one are the same event.',
    )


class Answer(BaseModel, extra="allow"):
    """Answers may hold "notes": warnings about the request."""


class Ranked(Answer):
    """The best items, the best first."""

    items: list[Id]
    probabilities: list[float] | None = Field(None, description='Of a regressor "predictions".')
    known: StrictBool | None = Field(None, description="Whether the log has the user.")
    unknown_items: list[Id] | None = Field(None, description="Those that no catalogue has.")
    request: str | None = Field(None, description="Where answers are logged: for a click's event.")


class Predicted(Answer):
    """A number for each row."""

    probabilities: list[float] | None = Field(None, description='Of a regressor "predictions".')


class Added(Answer):
    """How many events were new."""

    added: int
    event_ids: list[str]
    known_already: int = 0
    replaced: int = Field(0, description="Those that had another label.")


class Problem(BaseModel):
    """What was wrong."""

    detail: str


PROBLEMS = {
    401: "The token is absent or wrong.",
    422: "What was wrong with the request.",
    503: "Too many requests wait: ask again in a second.",
}
OF_WRITES = {404: "No event or user has this id.", 507: "There is no room for more events."}


def create_app(
    state: State, *, token: str = "", protects_reading: bool = False, hosts: Sequence[str] = ()
) -> FastAPI:
    """Return the application; the options are those of :class:`Guard`."""
    registry = _registry_of(state)
    served = Gauge("sklearn_din_model", "What is served: 1.", ["digest"], registry=registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.collect_notes()
        asyncio.get_running_loop().set_exception_handler(_log_quietly())
        looking = asyncio.create_task(state.look_for_new_files())
        yield
        looking.cancel()
        state.close()

    app = FastAPI(
        title="sklearn-din", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(
        Guard, registry=registry, token=token, protects_reading=protects_reading, hosts=hosts
    )
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    for kind in STATUS_OF:
        app.add_exception_handler(kind, _say_our_sentence)
    _add_routes(app, state)

    @app.get("/metrics", summary="Counts and times of requests, as Prometheus reads them")
    async def metrics() -> Response:
        served.clear()
        served.labels(state.digest).set(1)
        return PlainTextResponse(generate_latest(registry))

    add_page(app, state)
    app.openapi = lambda: _describe(app, state)  # type: ignore[method-assign]
    return app


def _add_routes(app: FastAPI, state: State) -> None:
    """Add what programs ask for."""

    async def answer(function: Any, *given: Any) -> Response:
        digest = state.digest
        values = await state.work(function, *given)
        return JSONResponse(values, headers={"model-digest": digest})

    async def written(function: Any, given: Any) -> Response:
        return JSONResponse(await state.write(function, given))

    def route(method: str, path: str, summary: str, model: type[Answer]) -> Any:
        texts = PROBLEMS | (OF_WRITES if path.startswith(("/events", "/users")) else {})
        bad = {n: {"model": Problem, "description": text} for n, text in texts.items()}
        return getattr(app, method)(path, summary=summary, response_model=model, responses=bad)

    @route("post", "/rank", "The best items for a user", Ranked)
    async def rank(request: RankRequest) -> Any:
        asked = request.user, request.items, request.top_k, request.exclude
        return await answer(state.rank, *asked)

    @route("post", "/explain", "What counted for an item: events, and what is known", Answer)
    async def explain(request: ExplainRequest) -> Any:
        return await answer(state.answers.explain, request.user, request.item)

    @route("post", "/predict", "The probability of a click, row by row", Predicted)
    async def predict(request: PredictRequest) -> Any:
        return await answer(state.answers.predict, request.rows)

    @route("get", "/similar", "Items that go with one", Ranked)
    async def similar(request: Annotated[SimilarRequest, Query()]) -> Any:
        return await answer(state.answers.similar, request.item, request.top_k)

    @route("post", "/events", "Clicks join their users' histories", Added)
    async def add_events(request: EventsRequest) -> Any:
        return await written(state.add, request.events)

    @route("delete", "/events/{event_id:any}", "Takes back an event that was posted", Answer)
    async def remove_event(event_id: str) -> Any:
        return await written(state.remove, event_id)

    @route("delete", "/users/{user:any}", "Forgets a user", Answer)
    async def forget_user(user: str) -> Any:
        return await written(state.forget, user)

    @app.get("/health", summary="Whether the server answers, and by what")
    async def health() -> Values:
        return _health(state)

    @app.get("/ready", summary="200 where a request would be answered at once, else 503")
    async def ready() -> Response:
        is_ready = state.n_waiting < MOST_WAITING
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


def _health(state: State) -> Values:
    """Return what is served, since when, and what is wrong with newer files."""
    answers = state.answers
    log = answers.histories
    return {
        "status": "old model" if state.problem else "no posts" if state.store_problem else "ok",
        "loaded": state.loaded.isoformat(timespec="seconds"),
        "model": state.digest,
        "items": len(answers.items),
        "events": None if log is None else log.n_events,
        "now": None if log is None else "clock" if log.clock.is_live else "newest event",
        "posted": state.about_store(),
        "problem": state.problem,
    }


def _registry_of(state: State) -> CollectorRegistry:
    """Return what is measured beside the requests."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)

    def gauge(name: str, text: str, value: Any) -> None:
        Gauge(name, text, namespace="sklearn_din", registry=registry).set_function(value)

    gauge("waiting_requests", "Requests that wait for a thread.", lambda: state.n_waiting)
    loaded = "model_loaded_timestamp_seconds"
    gauge(loaded, "When the model was loaded.", lambda: state.loaded.timestamp())
    gauge("failed_loads", "New files that could not be served.", lambda: state.n_failed)
    gauge("posted_bytes", "Posted events.", lambda: state.n_bytes)
    most = "Most of them; NaN: none."
    gauge("posted_limit_bytes", most, lambda: state.about_store()["bytes_at_most"] or "NaN")
    behind = "Since the store of posted events was read."
    gauge("store_seconds_behind", behind, lambda: state.about_store()["seconds_behind"])
    log = "Events of users, those that were posted among them."
    gauge("events", log, lambda: getattr(state.answers.histories, "n_events", 0))
    return registry


def _log_quietly() -> Any:
    """Return what the loop does with errors of its own: a line for each kind, now and then."""
    said: dict[str, float] = {}

    def tell(_: Any, context: dict[str, Any]) -> None:
        kind = f"{type(context.get('exception')).__name__}: {context['message']}"
        if time.monotonic() - said.get(kind, float("-inf")) > SECONDS_OF_SILENCE:
            said[kind] = time.monotonic()
            LOGGER.error("%s", kind)

    return tell


async def _say_what_is_wrong(request: Request, error: Exception) -> Response:
    """Answer a body of another form; what it held is not repeated."""
    problems = []
    for problem in error.errors() if isinstance(error, RequestValidationError) else ():
        where = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
        problems.append(f"{where}: {problem['msg']}")
    return JSONResponse({"detail": f"{'; '.join(problems)}. Examples are at /docs."}, 422)


async def _say_our_sentence(request: Request, error: Exception) -> Response:
    status = next(number for kind, number in STATUS_OF.items() if isinstance(error, kind))
    later = {"retry-after": "1"} if status == 503 else None
    again = " Posts may be repeated: by its event_id it is one." if later else ""
    again = again if isinstance(error, StoreError) else ""
    return JSONResponse({"detail": f"{error}{again}"}, status, later)


def _describe(app: FastAPI, state: State) -> Values:
    """Return the OpenAPI description, with the model's own columns and examples of now."""
    described = get_openapi(title=app.title, version=app.version, routes=app.routes)
    answers = state.answers
    events = [{answers.items.item: item} for item in answers.items.ids[:3]]
    context = {name: known[0] for name, known in answers.choices.items()}
    user, item = answers.user_of_events(events, context), answers.items.row(0)
    log = answers.histories
    posted = [] if log is None else [log.example()]
    schemas, own = described["components"]["schemas"], answers.items.item
    ranked = {"user": user, "items": answers.items.ids[:3], "top_k": 2}
    schemas["RankRequest"]["example"] = ranked
    schemas["ExplainRequest"]["example"] = {"user": user, "item": item[own]}
    schemas["PredictRequest"]["example"] = {"rows": [{**user, own: item[own]}]}
    schemas["EventsRequest"]["example"] = {"events": posted}
    schemas["RankRequest"]["properties"]["user"]["x-columns"] = answers.user_columns
    described["paths"]["/similar"]["get"]["parameters"][0]["example"] = item[own]
    return described
