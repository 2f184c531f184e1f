"""
Serve a model without torch
===========================

The server below needs onnxruntime and numpy. It takes impressions as plain dictionaries, the way
they arrive as JSON, and returns the probability of a click, the same as the Pipeline's. All it
knows is in the one file that ``export_onnx`` wrote: the network, and how to make its inputs.
"""

# sphinx_gallery_thumbnail_path = "_static/serve_onnx.svg"

import json

import numpy as np
import onnxruntime


class Server:
    """Probability of a click from plain dictionaries: ``Server("model.onnx").predict(rows)``.

    Values are of the kind they had at fit. What is absent or None is missing; histories of the
    same events (``hist_item``, ``hist_category``) are of one length.
    """

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.recipe = json.loads(metadata["sklearn_din"])
        self.ids = {
            name: {value: number for number, value in enumerate(values, start=2)}
            for name, values in self.recipe["vocabularies"].items()
        }

    def predict(self, rows):
        feed = {one["name"]: self.make_input(one, rows) for one in self.recipe["inputs"]}
        return self.session.run(["probability"], feed)[0]

    def make_input(self, one, rows):
        kind, cells = one["kind"], [row.get(one["column"]) for row in rows]
        if kind == "categorical":
            return np.array(self.look_up(one, cells), dtype=np.int32)
        if kind == "history":
            return padded([self.look_up(one, self.events(cell)) for cell in cells], np.int32)
        if kind == "mask":
            return padded([[True] * len(self.events(cell)) for cell in cells], np.bool_)
        if kind == "numeric_history":
            numbers = padded([self.events(cell) for cell in cells], np.float64)
        else:
            numbers = np.array(cells, dtype=np.float64)  # None becomes NaN
        if kind == "missing":
            return np.isnan(numbers).astype(np.float32)
        return scaled(numbers, one)

    def look_up(self, one, values):
        known = self.ids[one["vocabulary"]]
        return [known.get(value, 1) for value in values]  # 1: unknown

    def events(self, cell):
        """The newest events of a history."""
        separator = self.recipe["separator"]
        if separator is not None and isinstance(cell, str):
            cell = [part.strip() or None for part in cell.split(separator)] if cell.strip() else []
        return [] if cell is None else list(cell)[-self.recipe["max_length"] :]


def padded(cells, dtype):
    """Lists as one array, zeros (False) after the shorter ones."""
    width = max(map(len, cells), default=0)
    array = np.zeros((len(cells), width), dtype=dtype)
    for row, cell in zip(array, cells, strict=True):
        row[: len(cell)] = cell
    return array


def scaled(numbers, one):
    numbers = (numbers - one["shift"]) / one["scale"]
    if one["is_elapsed"]:
        numbers = np.log1p(np.maximum(numbers, 0))
    return np.nan_to_num(numbers, nan=0).astype(np.float32)


# %%
# That was the server. Here is the model it serves, trained on a click log, written to one file
# and asked about three impressions: a user with a past, the same user shown something new, and
# a user of whom nothing is known.


def main():
    import tempfile
    from pathlib import Path

    from sklearn.pipeline import Pipeline

    from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
    from sklearn_din.datasets import make_click_log
    from sklearn_din.serving.export import export_onnx

    log = make_click_log(n_users=300, n_items=200, n_categories=10, random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0))])
    model.fit(X, log.y)

    rows = [
        {"item": 3, "category": 1, "price": 9.5, "device": "phone",
         "hist_item": [17, 3, 5], "hist_category": [4, 1, 1]},
        {"item": 10**6, "category": 2, "price": 4.0, "device": "phone",
         "hist_item": [17, 3, 5], "hist_category": [4, 1, 1]},
        {"item": 3, "category": 1, "price": None, "device": None},
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        export_onnx(model, path)
        server = Server(path)
    for row, probability in zip(rows, server.predict(rows), strict=True):
        print(f"{probability:.4f}  {row}")
    impressions = X.drop(columns=["user", "time"]).to_dict("records")
    difference = np.abs(server.predict(impressions) - model.predict_proba(X)[:, 1]).max()
    print(f"largest difference from predict_proba in {len(X)} rows: {difference:.1e}")


if __name__ == "__main__":
    main()
