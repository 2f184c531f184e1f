"""Rank a catalogue over HTTP, by the files that export.py wrote: no torch, no pandas.

When model.onnx is replaced, the next requests are answered by the new one.
"""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from onnx_server import OnnxServer
from pydantic import BaseModel

FOLDER = Path(os.environ.get("MODEL_FOLDER", "model"))
SECONDS_BETWEEN_LOOKS = 1.0
N_THREADS = int(os.environ.get("THREADS", len(os.sched_getaffinity(0))))  # sees no CPU quota


class Request(BaseModel):
    """A user, and the items that a retrieval step has chosen: None for the whole catalogue."""

    user: dict[str, Any]
    items: list[str | int] | None = None
    top_k: int = 10


class Model:
    """The network and the catalogue: columns by name, and the row of each item."""

    def __init__(self) -> None:
        self.stamp = stamp()
        self.server = OnnxServer(FOLDER / "model.onnx")
        self.columns = json.loads((FOLDER / "catalogue.json").read_text(encoding="utf-8"))
        self.rows = {item: row for row, item in enumerate(self.columns["item"])}

    def rank(self, request: Request) -> dict[str, list]:
        """Return the best items and their probabilities; items of no catalogue are left out."""
        chosen = self.rows if request.items is None else dict.fromkeys(request.items)
        rows = [self.rows[item] for item in chosen if item in self.rows]
        if not rows and chosen:
            known = next(iter(self.rows))
            raise ValueError(
                f"no item of the request is in the catalogue, which has such as {known!r}: got "
                f"{request.items[:5]!r}. Write them as there, text in quotes and numbers without."
            )
        if not rows:
            return {"items": [], "probabilities": []}
        candidates = {
            name: [cells[row] for row in rows]
            for name, cells in self.columns.items()
            if name in self.server.columns_
        }
        best, probability = self.server.rank(request.user, candidates, top_k=request.top_k)
        items = [self.columns["item"][rows[position]] for position in best.tolist()]
        return {"items": items, "probabilities": probability.tolist()}


def stamp() -> tuple[int, int]:
    """Return what changes when the file is replaced."""
    status = (FOLDER / "model.onnx").stat()
    return status.st_mtime_ns, status.st_ino


async def look_for_new_models(app: FastAPI) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        if stamp() != app.state.model.stamp:
            app.state.model = await asyncio.to_thread(Model)  # requests go on meanwhile


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.model, app.state.pool = Model(), ThreadPoolExecutor(N_THREADS)
    looking = asyncio.create_task(look_for_new_models(app))
    yield
    looking.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/rank")
async def rank(request: Request) -> dict[str, list]:
    # As many at once as there are cores: the others wait, and none waits long
    ranking = app.state.pool.submit(app.state.model.rank, request)
    try:
        return await asyncio.wrap_future(ranking)
    except ValueError as error:  # a misspelt column, a text where a number belongs
        raise HTTPException(422, str(error)) from error
