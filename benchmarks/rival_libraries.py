"""Adaptors: the DIN of each other library, by its own loader, trainer and predict call.

Sizes are everybody's: embedding 16, attention (64, 16), MLP (200, 80), Adam at 1e-3; the rest is
the library's default. Where a library cannot take the arrays as they are, its class says so.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import workloads

EMBEDDING, ATTENTION, MLP, LEARNING_RATE = 16, (64, 16), (200, 80), 1e-3


class Rival:
    """A library as ``rivals.py`` uses it, and what the adaptors share.

    ``build(seed)`` makes model and optimizer; ``train(epochs=...)`` runs the library's loop,
    ``train_early(max_epochs=..., patience=...)`` stops it early on the validation AUC, keeps the
    best weights and returns the number of epochs; ``predict(part)`` returns probabilities.
    """

    package = ""

    def __init__(self, workload, *, batch_size=1024):
        self.workload, self.batch_size = workload, batch_size
        self.width = workload["max_length"]
        self.attributes = list(workload["attributes"])
        self.n_ids = workload["attributes"]

    def n_rows(self, part):
        return len(self.workload[part]["label"])

    def binned(self, part):
        """Return numbers as ids of 20 quantile bins, for libraries whose DIN takes ids alone."""
        train, rows, ranks = self.workload["train"], self.workload[part], np.arange(1, 20) / 20
        return {
            name: np.searchsorted(np.quantile(train[name], ranks), rows[name])
            for name in self.workload["numeric"]
        }

    def coded_events(self, part):
        """Return events as single codes for libraries that look attributes up in a table.

        One code a distinct tuple of attributes over all parts, 0 the padding.

        Returns
        -------
        table, candidate, events : the attributes of each code, and the codes of one part
        """
        parts = [p for p in workloads.PARTS if p in self.workload]
        columns = []
        for a in self.attributes:
            ids = [self.workload[p][key] for p in parts for key in (a, f"hist_{a}")]
            columns.append(np.concatenate([[0], *ids]))
        table, code = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
        code, begin = code.ravel(), 1
        for p in parts[: parts.index(part)]:
            begin += self.n_rows(p) + self.workload[p]["hist_offsets"][-1]
        candidate, events = np.split(code[begin:], [self.n_rows(part)])
        return table, candidate, events[: self.workload[part]["hist_offsets"][-1]]


class DeepCTRTorch(Rival):
    """deepctr-torch: one float matrix of all columns; dense L2 and Adam over whole tables."""

    package = "deepctr-torch"

    def build(self, seed):
        from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
        from deepctr_torch.models import DIN
        from torch.optim import Adam

        columns = [SparseFeat(a, self.n_ids[a], EMBEDDING) for a in self.attributes]
        for a in self.attributes:
            events = SparseFeat(f"hist_{a}", self.n_ids[a], EMBEDDING, embedding_name=a)
            columns.append(VarLenSparseFeat(events, self.width, length_name="seq_length"))
        columns += [DenseFeat(name) for name in self.workload["numeric"]]
        sizes = {"dnn_hidden_units": MLP, "att_hidden_size": ATTENTION}
        self.net = DIN(columns, self.attributes, **sizes, seed=seed)
        self.net.compile(
            Adam(self.net.parameters(), lr=LEARNING_RATE), "binary_crossentropy", metrics=["auc"]
        )

    def optimizer(self):
        return self.net.optim

    def inputs(self, part):
        rows = self.workload[part]
        columns = {a: rows[a] for a in [*self.attributes, *self.workload["numeric"]]}
        columns |= {f"hist_{a}": workloads.pad(rows, a, self.width) for a in self.attributes}
        columns["seq_length"] = np.diff(rows["hist_offsets"])
        # The library turns batches into float32 anyway: mixed types would become float64 first.
        return {name: values.astype(np.float32) for name, values in columns.items()}

    def train(self, *, epochs, **options):
        label = self.workload["train"]["label"]
        self.net.fit(
            self.inputs("train"), label, self.batch_size, epochs=epochs, verbose=0, **options
        )

    def train_early(self, *, max_epochs, patience):
        from deepctr_torch.callbacks import EarlyStopping

        stop = EarlyStopping("val_auc", patience=patience, mode="max", restore_best_weights=True)
        valid = (self.inputs("valid"), self.workload["valid"]["label"])
        self.train(epochs=max_epochs, callbacks=[stop], validation_data=valid)
        self.net.load_state_dict(stop.best_weights)  # by itself only where it stopped early
        return len(self.net.history.epoch)

    def predict(self, part):
        return self.net.predict(self.inputs(part), self.batch_size)


class TorchRechub(Rival):
    """torch-rechub: a dictionary of columns, collated row by row; one attention an attribute.

    Its DIN takes no numbers: they enter as ids of 20 quantile bins. It also wants at least one
    feature beside candidate and history: a constant stands in where there are no numbers.
    """

    package = "torch-rechub"

    def build(self, seed):
        import torch
        from torch_rechub.basic.features import SequenceFeature, SparseFeature
        from torch_rechub.models.ranking import DIN
        from torch_rechub.trainers import CTRTrainer

        torch.manual_seed(seed)
        names = self.workload["numeric"] or ["constant"]
        history = [
            SequenceFeature(f"hist_{a}", self.n_ids[a], EMBEDDING, "concat", a, padding_idx=0)
            for a in self.attributes
        ]
        self.net = DIN(
            [SparseFeature(name, 20, EMBEDDING) for name in names],
            history,
            [SparseFeature(a, self.n_ids[a], EMBEDDING, padding_idx=0) for a in self.attributes],
            mlp_params={"dims": list(MLP)},
            attention_mlp_params={"dims": list(ATTENTION)},
        )
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = CTRTrainer(self.net, model_path=self.folder.name)

    def optimizer(self):
        return self.trainer.optimizer

    def inputs(self, part):
        rows = self.workload[part]
        columns = {a: rows[a] for a in self.attributes}
        columns |= {f"hist_{a}": workloads.pad(rows, a, self.width) for a in self.attributes}
        columns |= self.binned(part)
        if not self.workload["numeric"]:
            columns["constant"] = np.zeros(len(rows["label"]), dtype=np.int64)
        return columns

    def loader(self, part, *, shuffle):
        from torch_rechub.utils.data import DataGenerator

        x, y = self.inputs(part), self.workload[part]["label"]
        loaders = DataGenerator(x, y).generate_dataloader(x, y, x, y, batch_size=self.batch_size)
        return loaders[0] if shuffle else loaders[2]

    def train(self, *, epochs, valid=None):
        self.trainer.n_epoch = epochs
        self.trainer.fit(self.loader("train", shuffle=True), valid)

    def train_early(self, *, max_epochs, patience):
        stopper = self.trainer.early_stopper
        stopper.patience = patience
        seen, evaluate = [], self.trainer.evaluate
        self.trainer.evaluate = lambda *a: seen.append(evaluate(*a)) or seen[-1]
        self.train(epochs=max_epochs, valid=self.loader("valid", shuffle=False))
        self.net.load_state_dict(stopper.best_weights)  # by itself only where it stopped early
        return len(seen)

    def predict(self, part):
        return self.trainer.predict(self.net, self.loader(part, shuffle=False))


class FuxiCTR(Rival):
    """FuxiCTR: the DIN in its wheel (LongCTR) with that folder's loader over Parquet.

    Batches are padded to their own longest history, an event's attributes looked up in a table.
    The loader packs a row into one integer matrix: numbers enter as quantile bins here, too.
    """

    package = "fuxictr"

    def build(self, seed):
        from fuxictr.features import FeatureMap
        from fuxictr.pytorch.torch_utils import seed_everything
        from model_zoo.LongCTR.DIN.DIN import DIN

        seed_everything(seed)
        self.folder = tempfile.TemporaryDirectory()
        self.map = FeatureMap("workload", self.folder.name)
        self.map.labels = ["label"]
        (Path(self.folder.name) / "workload").mkdir()
        self.map.features.update(
            {k: {"type": "meta"} for k in ("user_index", "item_index", "seq_len")}
        )
        for name in self.workload["numeric"]:
            self.map.features[name] = {"type": "categorical", "source": "", "vocab_size": 20}
        for a in self.attributes:
            ids = {"type": "categorical", "source": "item", "vocab_size": self.n_ids[a]}
            self.map.features[a] = {**ids, "padding_idx": 0}
        self.map.default_emb_dim = EMBEDDING
        sizes = {"dnn_hidden_units": list(MLP), "attention_hidden_units": list(ATTENTION)}
        sizes |= {"learning_rate": LEARNING_RATE, "embedding_dim": EMBEDDING}
        names = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC"]}
        self.net = DIN(self.map, **sizes, **names, model_root=self.folder.name, verbose=0)

    def optimizer(self):
        return self.net.optimizer

    def loader(self, part, *, shuffle):
        import pandas as pd
        from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

        rows, n = self.workload[part], self.n_rows(part)
        offsets = rows["hist_offsets"]
        table, candidate, events = self.coded_events(part)
        folder = Path(tempfile.mkdtemp(dir=self.folder.name))
        item_info = pd.DataFrame(table, columns=self.attributes)
        item_info.insert(0, "item_index", np.arange(len(table)))
        item_info.to_parquet(folder / "items.parquet")
        histories = np.split(events, offsets[1:-1])
        pd.DataFrame({"full_item_seq": histories}).to_parquet(folder / "users.parquet")
        columns = {"user_index": np.arange(n), "item_index": candidate, "seq_len": np.diff(offsets)}
        columns |= {**self.binned(part), "label": rows["label"].astype(np.int64)}
        pd.DataFrame(columns).to_parquet(folder / "rows.parquet")
        paths = [folder / f"{name}.parquet" for name in ("rows", "users", "items")]
        options = {"batch_size": self.batch_size, "num_workers": 0, "max_len": self.width}
        return LongCTRDataLoader(self.map, str(paths[0]), *paths[1:], shuffle=shuffle, **options)

    def train(self, *, epochs, valid=None):
        loader = self.loader("train", shuffle=True)
        if valid is None:
            self.net._eval_steps = len(loader) * epochs + 1  # it evaluates or fails
            self.net.load_weights = lambda checkpoint: None  # no best look to go back to
        self.net.fit(loader, epochs=epochs, validation_data=valid)

    def train_early(self, *, max_epochs, patience):
        self.net._early_stop_patience = patience
        valid = self.loader("valid", shuffle=False)
        self.train(epochs=max_epochs, valid=valid)
        return self.net._epoch_index + 1

    def predict(self, part):
        return self.net.predict(self.loader(part, shuffle=False))


RIVALS = {rival.package: rival for rival in (DeepCTRTorch, FuxiCTR, TorchRechub)}
