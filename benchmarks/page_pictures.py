"""Pictures of the server's page, desktop and phone: ``python -m benchmarks.page_pictures``.

It needs playwright and a Chromium of the system, fits a small model on a made log of a shop, and
writes docs/_static/page-desktop.png and page-phone.png.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder, sample_negatives
from sklearn_din.server.answers import Answers
from tests.page_server import find_browser, serve_page

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "_static"
GOODS = {
    "tea": ["Green tea", "Black tea", "Mint tea", "Rooibos", "Teapot", "Tea strainer"],
    "coffee": ["Espresso beans", "Filter coffee", "Coffee mill", "Milk jug", "Moka pot", "Decaf"],
    "bikes": ["Bicycle bell", "Rear light", "Tyre 28 inch", "Tyre levers", "Saddle bag", "Pump"],
    "garden": ["Tomato seeds", "Rose shears", "Watering can", "Potting soil", "Trellis", "Gloves"],
    "reading": ["Crime novel", "Atlas", "Cookbook", "Poems", "Reading lamp", "Bookmark"],
    "music": ["Violin strings", "Drum sticks", "Sheet music", "Metronome", "Capo", "Tuner"],
}
SECONDS_OF_PATIENCE = 120  # on a machine that is busy
LIKED = 0.8  # of a user's clicks, those on the two departments that he likes
N_USERS, WIDTHS, N_COLOURS = 300, (1280, 390), 64


def make_log() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return clicks of users who each like two departments, and the catalogue."""
    rng = np.random.default_rng(0)
    goods = [(name, department) for department, names in GOODS.items() for name in names]
    catalogue = pd.DataFrame(goods, columns=["name", "department"]).assign(sku=range(len(goods)))
    rows = []
    for user in range(N_USERS):
        liked = catalogue["department"].isin(rng.choice([*GOODS], 2, replace=False)).to_numpy()
        chance = np.where(liked, LIKED / liked.sum(), (1 - LIKED) / (~liked).sum())
        skus = rng.choice(len(goods), rng.integers(4, 25), p=chance)
        hours = rng.integers(0, 24 * 60) + np.cumsum(rng.exponential(30, len(skus)))
        times = pd.Timestamp("2026-01-05") + pd.to_timedelta(hours, "h")
        devices = rng.choice(["phone", "web"], len(skus))
        rows.append(pd.DataFrame({"user": user, "sku": skus, "time": times, "device": devices}))
    clicks = pd.concat(rows, ignore_index=True).merge(catalogue[["sku", "department"]], on="sku")
    return clicks.assign(time=clicks["time"].dt.floor("s")), catalogue


def fit_answers() -> Answers:
    """Return the answers of a model of that log."""
    clicks, catalogue = make_log()
    X, y = sample_negatives(
        clicks, item="sku", item_columns=["department"], n_negatives=4, random_state=0
    )
    builder = HistoryBuilder(user="user", time="time", columns=["sku", "department"])
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=4, random_state=0)
    steps = [("history", builder), ("encode", encoder), ("din", classifier)]
    return Answers(Pipeline(steps).fit(X, y), catalogue, clicks, title="name")


def main() -> None:
    """Look at one user, desktop and phone."""
    answers = fit_answers()
    with serve_page(answers) as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for name, width in zip(("desktop", "phone"), WIDTHS, strict=True):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.set_default_timeout(SECONDS_OF_PATIENCE * 1_000)
            page.goto(address)
            page.fill("#user", "118")
            page.press("#user", "Enter")
            page.wait_for_selector("#strip .bar")
            page.wait_for_selector("#users li:only-child")
            page.evaluate("() => document.activeElement.blur()")
            picture = Image.open(BytesIO(page.screenshot(full_page=True)))
            picture.quantize(N_COLOURS).save(FOLDER / f"page-{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
