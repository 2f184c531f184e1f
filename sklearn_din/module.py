"""The Deep Interest Network: encoded fields in, one logit per impression out."""

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.number_ends import Ranges, find_ends
from sklearn_din.features.schema import Behaviour, Schema
from sklearn_din.network.batch import EVENTS_PER_PART, Batch, is_host
from sklearn_din.network.embeddings import FieldEmbeddings
from sklearn_din.network.interest import FlatEvents, Interest
from sklearn_din.network.layers import MLP, LabelLogits
from sklearn_din.network.number_bins import Bins, NumberBins

# Standard deviation of the initial embeddings. Unlike the paper, which gives none: the extended
# network starts smaller (figures: docs/results.rst).
INITIAL_SCALE = {"paper": 0.05, "extended": 0.01}
NUMBERS_HIDDEN = 0.15  # fraction of the numbers that each training step hides (extended network)
FAVOUR_RATE = 5.0  # times the learning rate: favours are large numbers (benchmarks/README.md)
OPTIONS: dict[str, tuple[str | None, ...]] = {
    "pooling": ("attention", "sum", "mean", "max"),
    "interest": ("paper", "extended"),
    "attention_activation": ("prelu", "dice", "relu", "sigmoid"),
    "attention_normalization": ("auto", "sqrt", "softmax", None),
    "activation": ("prelu", "dice", "relu"),
}


_process = os.getpid()  # in which torch may use threads


def compute_alone_if_forked() -> None:
    """Set torch to one thread in a forked process, which has OpenMP's locks without the threads.

    A product that is split among several would wait for ever. A child that runs no network of ours
    keeps its threads.
    """
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)


class DIN(nn.Module):
    """Deep Interest Network (Zhou et al., KDD 2018): encoded impressions in, logits out.

    Each id has an embedding. The activation unit compares each past event, with embedding e_j,
    with the candidate, with embedding q, and the weighted events are summed to one interest per
    behaviour (section 4.3)::

        a(e, q)  = MLP([q, e, q - e, q * e])
        interest = a(e_1, q) e_1 + ... + a(e_T, q) e_T
        logit    = MLP([numbers, embeddings of all other columns and of the candidate, interests])

    ``interest="paper"`` is this published network. ``interest="extended"``, the default, is ours:

    - The activation unit also gets which attributes of the event equal the candidate's, how
      recent the event is, the product of both, and the event's numbers; of numbers that the
      impression has too, such as a price, by how much its own is larger, and how near both are.
    - Instead of each interest, the MLP gets candidate * interest, the sum of the weights,
      candidate * the unweighted sum of the events, the length of the history, and the number of
      events with the candidate's id: for each attribute one count of all events and one in which
      recent events count more. Lengths, counts and the sum of weights enter as log(1 + x), with
      their sign.
    - For attributes without a candidate (past answers, kinds of action), for the events'
      numbers and for the differences it gets the weighted mean. For those attributes it also
      gets the plain mean, over all events and over those with the candidate's id, for each of
      its attributes.
    - Queries and events are detached before the activation unit and in its weighted sum: the
      embeddings learn from the candidate and from the unweighted sum. If the events have an
      attribute without a candidate, they are not detached: only attention shows which of its
      values are alike.
    - Beside each number it gets ``bins`` of it, by which a layer can bend at thresholds.
    - If there are ids, each training step replaces 15 % of the numbers by zero, their average, and
      all bins of a number together with it.

    Bags, which are behaviours without a candidate, are summed in both networks, and numbers end
    where training's did (``ranges``). If ids have fixed vectors (``vectors`` of the encoder), an
    embedding is the sum of the id's own row and a learned projection of its vector.

    If training rows have positions, each position has a learned favour that is added to the
    logit, minus the average favour, like the shallow tower of Zhao et al. (RecSys 2019). Rows
    without a position, and rows to predict, have none.

    Parameters
    ----------
    schema : Schema
        Fields and behaviours of the encoded impressions, from the encoder.
    embedding_dim : int or dict of str to int, default=16
        Width of all embeddings, or a width for each vocabulary. Wider embeddings represent more
        about frequent ids; time and memory grow in proportion.
    pooling : {"attention", "sum", "mean", "max"}, default="attention"
        How the events of a history are combined into one vector. Only "attention" depends on the
        candidate. "sum" with ``interest="paper"`` is the paper's base model.
    interest : {"paper", "extended"}, default="extended"
        The published network, or the additional inputs listed above.
    attention_units : tuple of int, default=(64, 16)
        Width of each hidden layer of the activation unit.
    attention_activation : {"prelu", "dice", "relu", "sigmoid"}, default="prelu"
        Activation function of each hidden layer of the activation unit. "prelu" and "sigmoid"
        are the fastest: native code computes them.
    attention_normalization : {"auto", None, "sqrt", "softmax"}, default="auto"
        What the weighted sum of a history is divided by: None for nothing, as in the paper,
        "sqrt" for the square root of the history's length; "softmax" makes the weights sum to
        one. "auto" is None if ``interest="paper"`` and "sqrt" if "extended".
    hidden_units : tuple of int, default=(200, 80)
        Width of each hidden layer of the MLP.
    activation : {"prelu", "dice", "relu"}, default="prelu"
        Activation function of each hidden layer of the MLP. "prelu" without dropout is the
        fastest: native code computes it.
    dropout : float, default=0.0
        Fraction of the MLP's activations that each training step sets to zero.
    after : tuple of int or None, default=(None,)
        An entry for each predicted label: the number of the label it depends on, as a purchase
        depends on a click, or None. With several labels, which share all hidden layers, logits
        are (n_rows, n_labels).
    position_shares : tuple of float, default=()
        Weight of each position, from 1, in the average favour; positions beyond the last one
        count as the last. Empty: positions are ignored.
    bins : dict of str to tuple, default=None
        Start, end and average of each bin of some numbers, which training finds in its rows
        (``network/number_bins.py``). Ignored if ``interest="paper"``.
    ranges : dict of str to tuple, default=None
        How far training rows reach on either side, by number (``features/number_ends.py``).
    offset : str, default=""
        Name of the number that is added to the logit as it is: log-odds that an online model
        estimates for each row. The MLP reads it as well. "" without one, and with several labels.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> network = DIN(Schema((Field("price", "numeric"), Field("item", "categorical", "item", 9))))
    >>> sum(parameter.numel() for parameter in network.parameters())
    19907

    The published network on one behaviour, padded, in plain torch:

    >>> from sklearn_din.features import Behaviour, EncodedFeatures, Ragged
    >>> from sklearn_din.network.batch import Batch
    >>> fields = Field("item", "categorical", "item", 9), Field("past", "history", "item", 9)
    >>> clicks = Behaviour("past", ("past",), ("item",), max_length=3)
    >>> network = DIN(Schema(fields, (clicks,)), interest="paper")
    >>> past, item = torch.tensor([[4, 7, 4], [5, 0, 0]]), torch.tensor([4, 6])  # 0 is padding
    >>> e, q = (network.embeddings.weight("item")[ids] for ids in (past, item))
    >>> unit = network.interests[0].unit
    >>> unit = nn.Sequential(unit.first, unit.first_activation, *unit.rest, unit.last)
    >>> q_of_e = q[:, None].expand_as(e)
    >>> a = unit(torch.cat([q_of_e, e, q_of_e - e, q_of_e * e], dim=2))  # not normalized
    >>> interest = ((past > 0)[..., None] * a * e).sum(1)
    >>> logits = network.output(network.mlp(torch.cat([q, interest], dim=1))).squeeze(1)
    >>> events, lengths = past[past > 0].int().numpy(), (past > 0).sum(1).int().numpy()
    >>> ragged = Ragged.from_lengths({"past": events}, lengths)
    >>> X = EncodedFeatures(network.schema, {"item": item.int().numpy()}, {("past",): ragged})
    >>> torch.allclose(network(Batch(X)), logits)
    True
    """

    offset_scale: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_dim: int | Mapping[str, int] = 16,
        pooling: str = "attention",
        interest: str = "extended",
        attention_units: tuple[int, ...] = (64, 16),
        attention_activation: str = "prelu",
        attention_normalization: str | None = "auto",
        hidden_units: tuple[int, ...] = (200, 80),
        activation: str = "prelu",
        dropout: float = 0.0,
        after: tuple[int | None, ...] = (None,),
        position_shares: tuple[float, ...] = (),
        bins: Bins | None = None,
        ranges: Ranges | None = None,
        offset: str = "",
    ) -> None:
        from sklearn_din.utils.validation import check_choice  # and pandas

        super().__init__()
        compute_alone_if_forked()
        chosen = (pooling, interest, attention_activation, attention_normalization, activation)
        for (name, options), value in zip(OPTIONS.items(), chosen, strict=True):
            check_choice(value, options, name=name)
        self.schema, self.extended = schema, interest == "extended"
        self.options: dict[str, Any] = {  # to rebuild this network
            "embedding_dim": {name: int(width) for name, width in embedding_dim.items()}
            if isinstance(embedding_dim, Mapping)
            else int(embedding_dim),
            **dict(zip(OPTIONS, chosen, strict=True)),
            "attention_units": tuple(map(int, attention_units)),
            "hidden_units": tuple(map(int, hidden_units)),
            "dropout": float(dropout),
            "after": tuple(after),
            "position_shares": tuple(position_shares),
            "bins": dict(bins or {}) if self.extended else {},
            "ranges": dict(ranges or {}),
            "offset": offset,
        }
        self.of_numbers = schema.names("numeric")  # fields, in order
        self.of_ids = schema.names("categorical", "list")
        self.embeddings = FieldEmbeddings(schema, embedding_dim, scale=INITIAL_SCALE[interest])
        self.interests = nn.ModuleList(map(self._make_interest, schema.behaviours))
        self._end_numbers()
        n_inputs, n_labels = sum(self.mlp_inputs.values()), len(after)
        self.mlp = MLP(n_inputs, tuple(hidden_units), activation=activation, dropout=dropout)
        n_hidden, self.has_labels = self.mlp.n_outputs, n_labels > 1
        self.output = LabelLogits(n_hidden, after) if n_labels > 1 else nn.Linear(n_hidden, 1)
        if position_shares:
            self.favours = nn.Parameter(torch.zeros(len(position_shares), n_labels))
        self.offset_column = self.of_numbers.index(offset) if offset else None
        if offset:  # 1 in training; a scale of the logits multiplies it, too
            self.register_buffer("offset_scale", torch.ones(()))

    def widen(self, ranges: Ranges) -> None:
        """Let numbers go as far as other ranges say."""
        device = self.bins.starts.device
        self.options = self.options | {"ranges": dict(ranges)}
        self._end_numbers()
        self.bins.to(device)

    def _end_numbers(self) -> None:
        growing = {f.name for f in self.schema.fields if f.level and f.level.grows}
        ends = find_ends(self.options["ranges"], growing)
        self.bins = NumberBins(self.of_numbers, self.options["bins"], ends)
        for interest in self.interest_modules:
            interest.ends = ends

    def _make_interest(self, behaviour: Behaviour) -> Interest:
        options, vocabulary_of = self.options, self.embeddings.vocabulary_of
        normalization = options["attention_normalization"]
        if normalization == "auto":
            normalization = "sqrt" if self.extended else None
        return Interest(
            behaviour,
            tuple(self.embeddings.width(name) for name in behaviour.histories),
            with_vectors=[
                (history, candidate, vocabulary_of[history])
                for history, candidate in behaviour.candidate_of.items()
                if candidate is not None and vocabulary_of[history] in self.embeddings.projections
            ],
            compared_numbers={n: c for n in behaviour.numbers if (c := self.schema[n].candidate)},
            pooling=options["pooling"],
            extended=self.extended,
            normalization=normalization,
            units=options["attention_units"],
            activation=options["attention_activation"],
        )

    @property
    def interest_modules(self) -> list[Interest]:
        """The modules of ``interests``, which are known to be Interest."""
        return [cast(Interest, module) for module in self.interests]

    @property
    def mlp_inputs(self) -> dict[str | tuple[str, ...], int]:
        """The MLP's inputs in their order: columns of a field, or of a behaviour's histories."""
        return {
            **{name: self.bins.widths[name] for name in self.of_numbers},
            **{name: self.embeddings.width(name) for name in self.of_ids},
            **{part.behaviour.histories: part.n_outputs for part in self.interest_modules},
        }

    def forward(self, batch: Batch) -> Tensor:
        """One logit per impression, (n_rows,), or one for each label, (n_rows, n_labels)."""
        compute_alone_if_forked()
        if batch.shared:  # the native code alone computes a shared history once
            whole, device = Batch(batch.X), batch.numbers.device
            parts = whole.split(EVENTS_PER_PART) if is_host(device) else [whole.to(device)]
            return torch.cat([self(part) for part in parts])
        embeddings = self.embeddings(batch.ids, batch.distinct, batch.vectors, batch.lists)
        inputs = [self._numbers(batch)] if self.of_numbers else []
        inputs += [embeddings[name] for name in self.of_ids]
        for interest in self.interest_modules:
            queries, keys = self._queries_and_keys(interest.behaviour, embeddings, batch)
            inputs += FlatEvents(interest, queries, keys, batch).outputs()
        logits = self.output(self.mlp(torch.cat(inputs, dim=1))).squeeze(1)
        offsets = self.offsets_of(batch)
        return self.add_favours(logits if offsets is None else logits + offsets, batch)

    def offsets_of(self, batch: Batch) -> Tensor | None:
        """Return what is added to each row's logit, (n_rows,); None without an offset."""
        if self.offset_column is None:
            return None
        return self.offset_scale * batch.numbers[:, self.offset_column]

    def add_favours(self, logits: Tensor, batch: Batch) -> Tensor:
        """Add the favour of each row's position to its logits, where positions are known."""
        if batch.positions is None:
            return logits
        return logits + self.favours_at(batch.positions).view_as(logits)

    def favours_at(self, positions: Tensor) -> Tensor:
        """Favour of each row's position, less the average favour: (n_rows, n_labels)."""
        if not self.options["position_shares"]:
            return torch.zeros(len(positions), self.output.out_features, device=positions.device)
        shares = self.favours.new_tensor(self.options["position_shares"])
        favours = FAVOUR_RATE * (self.favours - shares @ self.favours)
        at = positions.clamp(max=len(shares))
        return F.pad(favours, (0, 0, 1, 0)).index_select(0, at)  # 0 at position 0

    def bias_of(self, outputs: Tensor) -> Tensor:
        """Return the last bias with which all rows have these outputs, if its weights are zero."""
        return self.output.bias_of(outputs) if isinstance(self.output, LabelLogits) else outputs

    def outputs_of(self, biases: Tensor) -> Tensor:
        """Return the outputs that have these biases: the inverse of ``bias_of``."""
        return self.output.join(biases) if isinstance(self.output, LabelLogits) else biases

    @torch.no_grad()
    def attention(self, batch: Batch) -> dict[tuple[str, ...], Tensor]:
        """Factor of each event in its interest, (n_events,), by the histories of each behaviour."""
        compute_alone_if_forked()
        embeddings = self.embeddings(batch.ids, vectors=batch.vectors, lists=batch.lists)
        return {
            interest.behaviour.histories: FlatEvents(
                interest, *self._queries_and_keys(interest.behaviour, embeddings, batch), batch
            ).factors_of_events()
            for interest in self.interest_modules
        }

    def _numbers(self, batch: Batch) -> Tensor:
        """Numbers, and their bins; in training some are hidden behind zero, the average.

        A number is hidden together with its bins. Returns: (n_rows, n_numeric + n_bins)

        Unlike the paper: an id's embedding knows the labels of its training rows, and an exact
        number tells which of them this row is. The others are not scaled up, as dropout would.
        """
        inputs = self.bins(batch.numbers)
        if not (self.training and self.extended and self.embeddings.tables):
            return inputs
        n_numbers = batch.numbers.shape[1]  # drawn for all rows of a joint batch by each process
        drawn = batch.numbers.new_empty(batch.n_joint_rows, n_numbers).uniform_()
        is_shown = batch.own_rows(drawn).ge_(NUMBERS_HIDDEN)
        return is_shown.index_select(1, self.bins.columns).mul_(inputs)

    def _queries_and_keys(
        self, behaviour: Behaviour, embeddings: dict[str, Tensor], batch: Batch
    ) -> tuple[Tensor | None, Tensor]:
        """Candidates and events of a behaviour, attributes side by side.

        queries : (n_rows, width), zeros where an attribute has no candidate; None for a bag
        keys : (n_events, width)
        """
        keys = torch.cat([embeddings[name] for name in behaviour.histories], dim=1)
        if behaviour.is_bag:
            return None, keys
        queries = [
            keys.new_zeros(batch.n_rows, self.embeddings.width(history))
            if candidate is None
            else embeddings[candidate]
            for history, candidate in behaviour.candidate_of.items()
        ]
        return torch.cat(queries, dim=1), keys
