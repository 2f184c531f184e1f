"""The page: its files, and the requests they make."""

from importlib.resources import files
from typing import Any, Literal

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from sklearn_din.server.answers import MAX_EVENTS, Answers
from sklearn_din.server.json_values import Values, plain
from sklearn_din.server.state import State
from sklearn_din.training.early_stopping import best_check

N_HITS, N_BEST = 20, 10
FILES = {
    "/": ("page.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/docs.js": ("docs.js", "text/javascript"),
}


class PageUser(BaseModel, extra="forbid"):
    """The user whose history is shown."""

    user: str | int


class PageRequest(BaseModel, extra="forbid"):
    """The strip of events, oldest first, and the columns of the user."""

    events: list[Values] = Field(max_length=MAX_EVENTS)
    context: Values = {}
    exclude: bool = False
    item: str | int | None = None


def add_page(app: FastAPI, state: State) -> None:
    """Add the routes of the page to the application."""
    folder = files("sklearn_din.server")
    for route, (name, kind) in FILES.items():
        text = (folder / name).read_text(encoding="utf-8")
        app.get(route, include_in_schema=False)(_answer_with(Response(text, media_type=kind)))
    app.get("/favicon.ico", include_in_schema=False)(_answer_with(Response(status_code=204)))

    async def answer(function: Any, *given: Any) -> Response:
        return JSONResponse(await state.work(function, *given))

    @app.get("/page/about", include_in_schema=False)
    async def about() -> Response:
        return await answer(_about, state)

    @app.get("/page/report", include_in_schema=False)
    async def report() -> Response:
        answers = state.answers
        return await answer(lambda: {"columns": answers.report})

    @app.get("/page/users", include_in_schema=False)
    async def search_users(search: str = "") -> Response:
        log = state.answers.histories
        return await answer(lambda: {"users": [] if log is None else log.search(search, N_HITS)})

    @app.get("/page/items", include_in_schema=False)
    async def search_items(search: str = "") -> Response:
        items = state.answers.items
        return await answer(lambda: {"items": items.search(search, N_HITS)})

    @app.get("/page/image/{row}", include_in_schema=False)
    async def image(row: int) -> Response:
        items = state.answers.items
        path = items.picture(row) if 0 <= row < len(items) else None
        if path is None:
            raise HTTPException(404, "there is no such picture.")
        return FileResponse(path)

    @app.post("/page/user", include_in_schema=False)
    async def show_user(request: PageUser) -> Response:
        return await answer(_show_user, state.answers, request.user)

    @app.post("/page/rank", include_in_schema=False)
    async def rank(request: PageRequest) -> Response:
        return await answer(_rank, state.answers, request)

    @app.post("/page/why", include_in_schema=False)
    async def why(request: PageRequest) -> Response:
        return await answer(_tell_why, state.answers, request)


def _answer_with(response: Response) -> Any:
    async def answer() -> Response:
        return response

    return answer


def _about(state: State) -> Values:
    """Return what the page needs to know of the model before anything is chosen."""
    answers = state.answers
    context = [name for name in answers.user_columns if name not in answers.event_columns]
    log = answers.histories
    best = best_check(answers.training)
    checks = [{n: v if v == v else None for n, v in c.items()} for c in answers.training]
    return {
        "number": answers.number,
        "items": len(answers.items),
        "item": answers.items.item,
        "events": None if log is None else log.n_events,
        "now": None if log is None or log.clock.is_live else log.clock.show(log.clock.now()),
        "users_return": log is not None and log.users_return_to(answers.items.item),
        "context": [{"name": name, "choices": answers.choices.get(name)} for name in context],
        "training": checks,
        "best_epoch": None if best is None else best["epoch"],
        "epochs": answers.n_epochs,
        "validation": {n: v if v == v else None for n, v in answers.validation.items()},
        "calibrated_by": answers.calibration,
        "digest": None if state.digest == "none" else state.digest,
        "loaded": state.loaded.isoformat(timespec="seconds"),
        "columns": answers.columns,
        **answers.figures,
    }


def _show_user(answers: Answers, user: str | int) -> Values:
    """Return the events of a user, with what people see of their items, and the user's columns."""
    log = answers.histories
    if log is None:
        raise ValueError("no users are known: start the server with --history.")
    id_of_user = log.read_user(user)
    histories, times = log.of(id_of_user)
    own = {source: histories[name] for name, source in answers.event_columns.items()}
    events = []
    for n, time in enumerate(times):
        event = {name: plain(cells[n]) for name, cells in own.items()}
        shown = answers.items.show_id(event[answers.items.item])
        events.append({"event": event, "time": time, **shown})
    whole = answers.read_user(id_of_user)
    names = {*answers.user_columns, *answers.level_columns} - {*histories}
    context = {name: value for name, value in whole.items() if name in names}
    n_events = log.n_of(id_of_user)
    return {"user": id_of_user, "events": events, "n_events": n_events, "context": context}


def _rank(answers: Answers, request: PageRequest) -> Values:
    """Return the ten best items with what people see of them."""
    user = answers.user_of_events(request.events, request.context)
    exclude: Literal["history"] | None = "history" if request.exclude else None
    best, numbers = answers.best(user, None, N_BEST, exclude)
    pairs = zip(best, numbers, strict=True)
    return {"best": [{**answers.items.show(row), "number": number} for row, number in pairs]}


def _tell_why(answers: Answers, request: PageRequest) -> Values:
    """Return the weight and the effect of each event for an item."""
    (row,) = answers.items.find([request.item])
    return answers.reasons(answers.user_of_events(request.events, request.context), row)
