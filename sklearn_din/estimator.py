"""DINClassifier: a scikit-learn classifier that owns a skorch net around the DIN module."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.module import DIN
from sklearn_din.training.alone import Alone
from sklearn_din.training.early_stopping import CHECK, SMALL_SCALE, best_check
from sklearn_din.training.inputs import (
    FitInputs,
    ImpressionsLike,
    check_features,
    check_inputs,
    check_label_columns,
    device_for,
)
from sklearn_din.training.parameters import (
    ClickParameters,
    NetworkParameters,
    Parameters,
    TrainingParameters,
    names_of,
)
from sklearn_din.training.reading import Label, Reading
from sklearn_din.training.target import Click, Labels, Target, is_missing
from sklearn_din.utils.compat import _fit_context, constraints_of
from sklearn_din.utils.estimator_state import EstimatorState, check_feature_names, check_keys
from sklearn_din.utils.extras import ranks
from sklearn_din.utils.typed_fields import from_dict, from_dict_of
from sklearn_din.utils.warnings import report_again, warn_user

if TYPE_CHECKING:
    import pandas as pd

    from sklearn_din.training.mixture import Mixture
    from sklearn_din.training.net import DINNet
    from sklearn_din.trees.boosted import BoostedTrees

ATTENTION_BATCH_SIZE = 1_024
LEARNT = {"n_features_in_", "schema", "target", "net", "_fitted_on_encoded"}


class DINEstimator(EstimatorState, Parameters, BaseEstimator):
    """Base class of the estimators: fits, continues, shows, saves and restores the network.

    What y is, and so the loss and what outputs mean, is said by a target (``training/target.py``).
    """

    net_: DINNet
    _kinds_of_target: tuple[type[Target], ...]
    _target: Target
    schema_: Schema
    history_: pd.DataFrame
    n_iter_: int
    novelty_: dict[str, float]
    _fitted_on_encoded: bool

    def attention_weights(self, X: EncodedFeatures) -> pd.DataFrame:
        """Return the weight of every past event in its impression's interest.

        Parameters
        ----------
        X : EncodedFeatures
            Impressions.

        Returns
        -------
        weights : DataFrame
            One row per event, oldest first: row (position of the impression in X), behaviour,
            position (0 is the oldest event kept), one column of encoded ids per attribute (Int32,
            missing if the behaviour lacks it), weight: the factor of the event's embedding in the
            interest vector. Bags are not included: they have no candidate.

        Raises
        ------
        ValueError
            If the classifier has no attention: ``pooling="max"``, or no history.
        """
        encoded = self._prepare_rows(X)
        from sklearn_din.features.event_table import check_weights, event_table  # and pandas
        from sklearn_din.training.batches import ImpressionBatches

        self.module_.eval()
        weights: dict[tuple[str, ...], list[np.ndarray]]
        weights = {b.histories: [] for b in check_weights(encoded, pooling=self.pooling)}
        for batch, _ in ImpressionBatches(encoded, batch_size=ATTENTION_BATCH_SIZE):
            of_batch = self.module_.attention(batch.to(self.net_.device))
            for key, values in weights.items():
                values.append(of_batch[key].cpu().numpy())
        return event_table(encoded, {k: np.concatenate(v) for k, v in weights.items()}, "weight")

    def summary(self) -> str:
        r"""Return the automatic decisions of the fit, columns, layers and parameters as text.

        Returns
        -------
        str
            Four tables, and what computes the network. The first table has what the fit decided by
            itself: the value and the reason. ``ids`` counts padding and unknown too. Columns that
            are "not used" are dates, and histories that the encoder's ``histories`` does not name.

        Examples
        --------
        >>> classifier = DINClassifier(hidden_units=(4,), max_epochs=1).fit(np.eye(2), [0, 1])
        >>> print(classifier.summary().rpartition("\n\n")[0])
        decision            value    reason
        numbers in bins     none     fewer than 1,000 rows, or bins predict no better
        batch size          64       2 training rows
        validation rows     none     fewer than 1,000 rows
        length of training  1 epoch  max_epochs
        <BLANKLINE>
        column  kind    vocabulary  ids  width
        x0      number                       1
        x1      number                       1
        <BLANKLINE>
        part   layers               parameters
        MLP    2 -> 4 -> 1 (PReLU)          18
        total                               18
        """
        from sklearn_din.training.summary import summarize

        check_is_fitted(self)
        return summarize(self)

    @property
    def module_(self) -> DIN:
        """The torch module."""
        return self.net_.module_

    @property
    def trees_(self) -> BoostedTrees | None:
        """The boosted trees beside the network; None where it answers alone."""
        return self._mixture.trees

    @property
    def trees_weight_(self) -> float:
        """The weight of the trees' log-odds in the answer's, 0 where the network answers alone."""
        return self._mixture.weight

    @property
    def _mixture(self) -> Mixture:
        mixture = self.net_.mixture_
        if mixture is None:
            raise AttributeError("there are trees where the classifier was fitted with trees=True.")
        return mixture

    def _learn(
        self,
        X: ImpressionsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
    ) -> Self:
        with _training_ranks() as processes:
            inputs = check_inputs(self, X, y, sample_weight)
            if inputs.is_encoded and processes.rank == 0:
                from sklearn_din.training.leaks import warn_of_leaks

                warn_of_leaks(inputs.X, inputs.target.clicks(inputs.y))
            net = self._new_net(inputs.target)
            net.callbacks = self._callbacks(processes)
            net.shows_progress = self.verbose > 0 and processes.rank == 0
            net.fit(inputs.X, inputs.y, inputs.weights, groups, ranks=processes)
            self._warn_of_end(net)
            self._keep(net, inputs)
            if self.verbose and processes.rank == 0:
                from sklearn_din.training.decisions import decisions_table

                print(decisions_table(net))  # noqa: T201  asked for by verbose
        return self

    def _learn_more(
        self,
        X: ImpressionsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        self._validate_params()  # scikit-learn validates only in the first call
        with _training_ranks() as processes:
            inputs = check_inputs(self, X, y, sample_weight, is_partial=True, classes=classes)
            is_first = not hasattr(self, "net_")
            schema, target = inputs.X.schema, inputs.target
            net = self._new_net(target) if is_first else self._grown_net(schema, target)
            net.callbacks = self._callbacks(processes)
            net.shows_progress = self.verbose > 0 and processes.rank == 0
            net.partial_fit(inputs.X, inputs.y, sample_weight=inputs.weights, ranks=processes)
            if net.stop_reason_ == "user":
                raise KeyboardInterrupt(
                    "partial_fit was interrupted: the classifier is as it was before."
                )
            self._keep(net, inputs)
        return self

    def _new_net(self, target: Target) -> DINNet:
        """Return a net of the classifier's parameters, without a network yet."""
        from sklearn_din.training.net import DINNet  # and skorch: slow to import

        parameters = {name: getattr(self, name) for name in names_of(TrainingParameters)}
        options = {f"module__{name}": getattr(self, name) for name in names_of(NetworkParameters)}
        options["module__after"] = target.after
        for name in ("module__attention_units", "module__hidden_units"):
            options[name] = tuple(options[name])
        return DINNet(DIN, **parameters, **options, target=target, device=device_for(self.device))

    def _grown_net(self, schema: Schema, target: Target) -> DINNet:
        """Return a net of its own memory that goes on where the fitted one stopped."""
        from sklearn_din.training.growth import grow

        schema = self.net_.neighbours_.extend(schema)
        options = {name: getattr(self, name) for name in names_of(NetworkParameters)}
        with torch.device("meta"):
            expected = DIN(schema, **options, after=target.after).options
        net = grow(self.net_, schema)
        own = net.module_.options
        changed = [name for name in (*options, "after") if expected[name] != own[name]]
        if changed:
            raise ValueError(
                f"partial_fit continues with the network of fit, but {', '.join(changed)} changed "
                "since. Reset the parameters, or call fit."
            )
        for name in names_of(TrainingParameters):
            setattr(net, name, getattr(self, name))
        net.target = target
        return net

    def _callbacks(self, processes: Alone) -> list[Any]:
        """Return the user's callbacks, and one that prints: of several processes in the first."""
        if not self.verbose or processes.rank > 0:
            return [*(self.callbacks or ())]
        from skorch.callbacks import PrintLog

        return [*(self.callbacks or ()), ("print_log", PrintLog(sink=partial(print, flush=True)))]

    def _warn_of_end(self, net: DINNet) -> None:
        best = best_check(net.checks_)
        scale = 1.0 if best is None else max(best["scales"])
        if net.stop_reason_ == "user":
            kept = "weights of the best validation check so far" if best else "latest weights"
            warn_user(
                f"training was interrupted in epoch {max(1, net.n_epochs_)} of {self.max_epochs}: "
                f"the {kept} are kept and the classifier can be used. Fit again for a full "
                "training, which continues from the latest checkpoint if callbacks has a "
                "Checkpoint."
            )
        elif scale < SMALL_SCALE:
            warn_user(
                "the validation rows hardly follow from what was learnt: logits times "
                f"{scale:.2g} suit them best and are kept, which lie near the "
                f"{net.target.what_constant_is} ({net.target.describe(net.constant_)}). Check that "
                "y belongs to the rows of X, that X describes the candidate and the past "
                "(summary()), that enough rows are held out, and are like those to predict "
                "(validation), and in history_ that training was not too short (max_epochs, lr)."
            )

    def _keep(self, net: DINNet, inputs: FitInputs) -> Self:
        """Set the fitted attributes at once: others see all of them, or none."""
        schema = inputs.X.schema
        attributes = {"_target": inputs.target, "schema_": schema} | _of_net(net)
        attributes |= {"_fitted_on_encoded": inputs.is_encoded}
        if inputs.is_encoded:  # scikit-learn's check has kept both of plain arrays and frames
            names = np.array(schema.feature_names_out(), dtype=object)
            attributes |= {"n_features_in_": inputs.X.shape[1], "feature_names_in_": names}
        self.__dict__.update(attributes)
        return self

    def _versions(self) -> dict[str, str]:
        return super()._versions() | {"torch": str(torch.__version__)}

    def _get_fitted(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "net_" not in attributes:
            return None
        from sklearn_din.training.growth import is_own
        from sklearn_din.training.net_state import net_state

        if not is_own(attributes["net_"]):
            return None
        net = attributes.pop("net_")
        for name in _of_net(net).keys() - {"net_"}:
            attributes.pop(name)
        names = {*LEARNT, "feature_names_in_"} - {"schema", "target", "net"}
        return {
            "schema": attributes.pop("schema_"),
            "target": attributes.pop("_target"),
            "net": net_state(net),
            **{name: attributes.pop(name) for name in sorted(names) if name in attributes},
        }

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        from sklearn_din.training.net_state import restore_net

        check_keys(fitted, LEARNT, optional={"feature_names_in_"}, what="a classifier")
        check_feature_names(fitted)
        if type(fitted["_fitted_on_encoded"]) is not bool:
            raise ValueError("_fitted_on_encoded must be a boolean.")
        schema = from_dict(Schema, fitted.pop("schema"))
        target = from_dict_of(self._kinds_of_target, fitted.pop("target"), "a target")
        net = restore_net(self._new_net(target), fitted.pop("net"), schema)
        learnt = {"schema_": schema, "_target": target}
        self.__dict__.update(fitted | learnt | _of_net(net))

    def _read(self, label: Label | None) -> Reading:
        """Return how outputs of the network become one number for each row."""
        return self._target.read(label)

    def _prepare_rows(self, X: ImpressionsLike) -> EncodedFeatures:
        check_is_fitted(self, "schema_")
        encoded = check_features(self, X, schema=self.schema_, is_encoded=self._fitted_on_encoded)
        return self.net_.neighbours_.add_to(encoded)


class DINClassifier(ClassifierMixin, DINEstimator, ClickParameters):
    """Deep Interest Network: click probability from attention over each user's history.

    An activation unit weighs each past event given the candidate, and the weighted sum is the
    user's interest in that candidate (paper, section 4.3)::

        v_U(A) = sum_j a(e_j, v_A) e_j        e_j: embedding of event j, v_A: of the candidate

    The weights of a history do not sum to one, so that their sum expresses how strong the interest
    is. With ``interest="paper"`` they are not normalized at all; the default network divides the
    weighted sum by the square root of the history's length. An MLP computes one logit from the
    interest, the embeddings of the other columns and the numbers.

    Most ids are rare, so each training batch shrinks the embeddings of the ids in it, rare ones
    more (mini-batch aware L2, section 5.1): ``embedding_l2 / (batch_size * n_j) * w_j`` is added
    to the gradient of id j, which occurs n_j times in the training rows (unlike the paper, it is
    larger if clicks are rare). Training stops when the validation loss stops falling, and keeps
    the best average of the weights.

    X is the output of :class:`HistorySequenceEncoder`, usually in one Pipeline. In a plain 2-D
    array or frame of numbers every column is numeric.

    Parameters
    ----------
    embedding_dim : int or dict, default=16
        Width of the embeddings. A dict gives a width per vocabulary, by name. Wider embeddings
        can represent more; memory and time grow in proportion.
    pooling : {"attention", "sum", "mean", "max"}, default="attention"
        How the events of a history are combined into one vector. "sum" gives every event the
        weight one. The base model of the paper is ``interest="paper", pooling="sum"``. "sum" and
        "mean" train faster; compare them with "attention" to see whether attention helps.
    interest : {"paper", "extended"}, default="extended"
        Inputs of the network. "paper" is the published network: the MLP gets the encoded columns
        and the interest, and nothing else. Item neighbours, the user's running rate, bins, hidden
        numbers, trees and the division by the square root of the length are off, unless
        ``neighbours``, ``trees`` or ``attention_normalization`` is set to something else than its
        default. Running rates that you attach yourself are ordinary numeric columns. Training is
        the same for both networks. "extended" differs from "paper":

        - The activation unit also gets, for each event, which attributes have the candidate's id,
          the same times 0.8 ** rank and 0.5 ** rank (rank 0 is the newest), log1p(rank), and its
          numbers.
        - Instead of the interest the MLP gets candidate * interest; the signed log1p of the sum
          of the weights; candidate * unweighted sum / sqrt(length); log1p of the history's
          length; and per attribute log1p of the number of events with the candidate's id, over
          all events and with recent ones weighted more. The sum of the weights and the unweighted
          sum are included with ``pooling="attention"`` only.
        - For attributes without a candidate (past answers, kinds of action) and for numeric
          histories the MLP gets the weighted mean; for those attributes also the plain mean, over
          all events and over those that have the candidate's id, for each of its attributes.
        - Attention does not train embeddings (its inputs are detached), except in a behaviour
          with an attribute that has no candidate.
        - Beside each number the MLP gets how far it has come through each of eight bins, which
          hold equally many training rows: it can bend at thresholds. From 1,000 rows on, where a
          regression on numbers predicts other users better with bins.
        - If there are ids, each training step sets 15 % of the numbers to zero, so that numbers
          do not identify a row whose label the embeddings have memorized.

        - With fewer than 3,000 training rows, the network ignores the elapsed-time columns of a
          memory.

        In both networks, numbers far outside the training range are clipped: counts and elapsed
        times of a memory at the largest value in training, other numbers one range further.
    attention_units : tuple of int, default=(64, 16)
        Widths of the hidden layers of the activation unit. The cost grows with the number of
        events times these widths.
    attention_activation : {"prelu", "dice", "relu", "sigmoid"}, default="prelu"
        Activation function of the hidden layers of the activation unit. "dice" is the paper's.
    attention_normalization : {"auto", "sqrt", "softmax"} or None, default="auto"
        What the attention weights of a history are divided by. None: nothing, as in the paper.
        "sqrt": the square root of the history's length. "softmax": they sum to one, which loses
        the strength of the interest. "auto": None with ``interest="paper"``, "sqrt" with
        "extended".
    hidden_units : tuple of int, default=(200, 80)
        Widths of the hidden layers of the MLP.
    activation : {"prelu", "dice", "relu"}, default="prelu"
        Activation function of the hidden layers of the MLP. "dice" is the paper's.
    dropout : float, default=0.0
        Fraction of the MLP's activations to drop in each training step.
    embedding_l2 : float, default=250.0
        Strength of the mini-batch aware L2 penalty on embeddings, for balanced clicks. It is the
        precision of a prior: each coordinate is N(0, 1 / embedding_l2), whatever the batch size.
        If a fraction p of the training rows are clicks, it is divided by 4 p (1 - p), because
        rows carry less information when clicks are rare: at 2 %, 250 becomes 3189. Lower it if
        items are good or bad regardless of the user, raise it if only the match with the history
        counts. 0 turns it off.
    lr : float, default=0.003
        Learning rate of Adam, for all parameters except the embeddings. Tune it first.
    embedding_lr : float, default=None
        Learning rate of the row-wise optimizer of the embeddings. None means ``lr``.
    batch_size : int or "auto", default="auto"
        Impressions per training step, in total if several processes train one model. "auto": 64
        below 2,000 training rows, 256 up to 100,000, 1024 beyond.
    max_epochs : int, default=20
        Maximum number of passes over the training rows. Early stopping usually ends training
        earlier.
    early_stopping : bool or "auto", default="auto"
        Whether to hold out validation rows, stop when their loss stops falling and keep the best
        average of the weights over the last four validation checks. "auto": from 3,000 rows on,
        if the rarer label has 300 of them. With fewer, from ten on, all rows are trained on, the
        weights are averaged over epochs, and three folds, split as ``validation`` says, choose how
        far the logits may depart from the base rate, which takes three to six times as long. (For
        numbers and several labels: from 1,000 rows on; no folds with fewer.)
        False: keep the latest weights, for a schedule of your own; small data are then
        overfitted. A check is judged, and the best one kept, with its logits (for numbers:
        predictions) scaled about the base rate (the mean) by the factor from 1 to almost 0 that
        suits the held-out rows best; a warning is raised below 0.1. ``partial_fit`` holds out no
        rows and changes no scale.
    validation : {"auto", "random", "last", "groups"}, default="auto"
        Which rows early stopping holds out. "auto": "last" if the encoder knows the times of the
        rows (``HistorySequenceEncoder(time=...)``), otherwise "random". "random": rows at random.
        "last": all rows from some time on, whatever their order, with equal times kept together;
        without times, the last rows in the given order. "groups": all rows of some users, known
        from the encoder (``HistorySequenceEncoder(user=...)``) or from the ``groups`` passed to
        ``fit``.
    validation_fraction : float, default=0.1
        Fraction of the rows (of the groups, with ``validation="groups"``) that early stopping
        holds out.
    refit : {"auto", "validation"} or None, default="auto"
        "validation": after the best stopping point is found, train on the held-out rows too, in
        one pass in order of time, starting from the best weights and averaging along the way.
        Each chunk is predicted before it is trained on; the pass is a row of ``history_``, and if
        its loss is not smaller than that of the best check, it is discarded. "auto": do so if the
        held-out rows are the last ones, so that the model has seen the newest data. None: never,
        to keep exactly the model that was validated. There is no such pass if a callback or
        Ctrl-C ended training.
    patience : int, default=4
        Number of validation checks without a smaller loss, from the fifth check on, before
        training stops. There is one check per 50 batches, with at least one and at most four per
        epoch.
    class_weight : dict, "balanced" or None, default=None
        Factor of the loss for each label. The probabilities then refer to the weighted classes
        and are no longer calibrated. Not supported for several labels.
    after : dict or None, default=None
        For several labels, which ones can only occur after another: ``{"purchase": "click"}``, or
        by number, ``{1: 0}``. The probability of a purchase is then the product of two
        probabilities, of the click and of the purchase given the click (ESMM), and the label
        counts as 0 without a click. None: labels are independent.
    label_weight : dict or None, default=None
        For several labels, the factor of each label's loss, by name or number; 1 if not named. A
        larger factor fits the shared embeddings more to that label. None: all are 1.
    neighbours : {"auto", "time", "user"} or None, default="auto"
        Whether to add numbers from item neighbours as inputs: how the candidate goes with the
        user's past events according to everybody's histories (see Notes). There are 14 per
        behaviour, for the attribute with the most ids if at least 16 are known, and for others with
        at least 64: embeddings hold who goes with whom among fewer.
        With ``interest="paper"``, "auto" means None.
        "time": the numbers of each row come from what was known at the end of the last of five
        blocks of time that ended before it. "user": users are divided into five parts; the
        numbers of a row of a training user come from all other parts (in training, from those
        before it), those of a new user from all parts. "auto": "time" if the encoder knows the
        times of the rows (``HistorySequenceEncoder(time=...)``), "user" if it only knows their
        users (``user=...``), otherwise none; with fewer than 3,000 rows, the numbers are zeros
        where the folds of ``early_stopping`` are predicted better so. With "time" and users, each
        label adds the user's level, ``user_level``, if users differ in it by more than chance (see
        Notes). None: no such inputs, as in the paper.
    trees : bool, default=False
        Whether to fit boosted trees beside the network, scikit-learn's
        HistGradientBoostingClassifier, and to answer by the mean of both log-odds. The network
        finds who likes what, trees find thresholds and crossings of numbers. They read the numbers
        of the row, rates of its ids and user among earlier training rows, matches with the history
        and means of past events. The weight of the trees in the mean is a half, unless the
        validation rows clearly ask for another one; with few labels folds choose it. It takes
        about half as long again, for one label and rows in memory, in one process; ``partial_fit``
        leaves the trees as they are.
    callbacks : list of skorch callbacks or None, default=None
        For what has no parameter here: schedules, clipping, :class:`Checkpoint`. A schedule moves
        the rates of embeddings and of all the rest: one that multiplies keeps the ratio of ``lr``
        and ``embedding_lr``, one that sets rates (OneCycleLR) makes both the same. Of the pass of
        ``refit`` they see the gradients alone, no steps and no epoch. Those that watch validation
        rows (EarlyStopping) are left out, with a warning, of a training that has none, as
        ``partial_fit`` and ``update`` are.
    device : str, default="auto"
        torch device for training and prediction. "auto": "cuda" if available, otherwise "cpu".
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, validation rows, order of rows, dropout, and hidden numbers
        and ids. None draws fresh entropy. The global random states of numpy and torch are never
        changed.
    verbose : int, default=0
        0 is silent. 1 prints a line per epoch with losses, AUC and seconds (skorch's
        ``PrintLog``), and after ``fit`` the automatic decisions (first table of ``summary()``).

    Attributes
    ----------
    classes_ : ndarray of shape (2,), or list of them
        The labels; the second is the click. For several labels, both classes of each.
    label_names_ : list of str
        For several labels, the columns of y, or their numbers as strings.
    net_ : skorch net
        Without training rows. ``net_.predict_proba(X)``, ``net_.fit(X, y)`` and
        ``net_.partial_fit(X, y)`` take EncodedFeatures and y of 0 and 1; ``net_.history`` has a row
        per epoch; ``net_.stop_reason_`` says why training ended: "max_epochs", "patience",
        "callback" or "user".
    trees_ : BoostedTrees or None
        With ``trees=True``, the boosted trees; None where the network answers alone.
    trees_weight_ : float
        With ``trees=True``, the weight of the trees' log-odds in the mean, 0 to 0.75.
    module_ : DIN
        The torch module. ``module_.schema`` has the numbers of item neighbours too.
    schema_ : Schema
        The schema of the encoded rows the classifier was fitted on.
    history_ : DataFrame
        One row per validation check: epoch (fractional if an epoch has several checks),
        train_loss, valid_loss, unscaled_loss (before the logits get the constant and the scale that
        suit the validation rows), valid_auc, seconds. Without validation, one row per epoch.
    n_iter_ : int
        Number of epochs started; each ``partial_fit`` counts as one and has a row in
        ``history_``.
    novelty_ : dict of str to float
        For each candidate column, the fraction of its ids that were new in the newer half of the
        rows: ids that no earlier row has, block by block of ``validation_fraction``. Below 1 %
        the catalogue counts as static; otherwise training and validation hide ids that appeared
        shortly before a row, as will happen in production. Empty if the times are unknown.
    n_features_in_, feature_names_in_
        As for every scikit-learn estimator.

    Notes
    -----
    Item neighbours are learned from X and y in ``fit``; ``partial_fit`` adds the clicks of its
    rows. Every row, in training or not, reads a table that does not count the row itself: a
    number that included the row's own click would reveal its label, also for a test row, since
    that click is in the user's later histories. Rows without user and time, and candidates in
    rankings, are predicted as of now and read everything. For each history the numbers are the
    sum, mean, maximum, newest value and decayed sum (0.8 per event) of two scores between the
    candidate and each past event, the weights of EASE (Steck, 2019; exact up to 3,000 items, of
    more among the 1,500 most popular) and a shrunk cosine, each limited to its 200 best neighbours;
    the logarithm of the candidate's popularity; its click rate, and the number of rows behind it;
    and whether it is known. By time, a history's scores are left out, as zeros, where a logistic
    regression on the blocks before predicts the last one better without them, by more than two
    standard errors: what goes together has changed.

    The level of a user is the log-odds of a click in the user's rows so far, minus those of all
    rows, shrunk by as much as users are alike (Donner, 1986). In training it counts the user's rows
    strictly before each row, later on those up to the last table that ended before the row. It is 0
    for new users, and for at least a fifth of the training rows, drawn at random. Users whose
    negatives are sampled have no level: their rates differ by no more than chance. Nor is there
    one where histories already hold all of the user's earlier rows and what came of them (ratings).
    It stays beside columns of ``attach_aggregates(..., aggregates="levels")``: leaving it out there
    gained nothing.

    References
    ----------
    G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.

    A. Donner, "A Review of Inference Procedures for the Intraclass Correlation Coefficient in the
    One-Way Random Effects Model", International Statistical Review 54, 1986.

    H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.RandomState(0).normal(size=(200, 2)).astype("float32")
    >>> y = np.where(X[:, 0] > 0, "yes", "no")
    >>> classifier = DINClassifier(random_state=0).fit(X, y)
    >>> bool(classifier.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: dict = constraints_of(ClickParameters)
    _kinds_of_target = (Click, Labels)
    _target: Click | Labels

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ImpressionsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            Impressions, one row per candidate shown. Arrays and frames are numeric throughout.
        y : array-like of shape (n,), or array or frame of shape (n, n_labels)
            Two kinds of labels; the larger one is the click. Several labels, such as click and
            purchase, share all hidden layers; NaN is left out.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss.
        groups : array-like of shape (n,), default=None
            With ``validation="groups"``: impressions of one group stay together. None: the users
            that the encoder was given, ``HistorySequenceEncoder(user=...)``.

        Returns
        -------
        self : DINClassifier

        Warns
        -----
        UserWarning
            If clicked candidates are among the events of their history far more often than others,
            and than the events repeat each other: histories then hold the row's own click. If one
            column alone tells the label. Both need enough rows to be no accident.

        Raises
        ------
        ValueError
            For labels of one or more than two kinds, missing labels, numbers that are not
            finite, lengths that differ, or a loss that is no longer finite; for a checkpoint of
            other parameters or data, or a damaged one.
        OSError
            Where the folder of a :class:`Checkpoint` cannot be written to.
        RuntimeError
            Where another training holds that folder; where one of the processes that train
            together is gone.
        """
        report_again()
        return self._learn(X, y, sample_weight, groups)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ImpressionsLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> DINClassifier:
        """Train on further rows: one pass over them, continuing from the current state.

        Weights, the optimizer's moments and the sequence of random numbers continue. Ids that the
        encoder has appended since get new embeddings, initialized as at fit; this alone changes
        no prediction. If items are new over time (``novelty_``), ids are hidden as at fit.

        There is no early stopping and no held-out validation rows, and the last weights are kept,
        not an average. ``batch_size="auto"`` remains what it was at fit; ``lr`` and
        ``embedding_lr`` have their current values. The L2 penalty on embeddings counts an id's
        occurrences in all rows so far, so that calls do not impose the same prior again. Item
        neighbours of these rows come from what was known before them; then the clicks of those
        rows that are later than all earlier ones are counted, or, by user, the clicks of all.
        ``class_weight="balanced"`` uses the labels of this call.

        Pass the rows of a day or a week, each once. On a classifier that is not fitted, this
        trains a new network in one pass; ``fit`` with early stopping is better.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``, or from the same encoder after its ``partial_fit``.
        y : array-like of shape (n,), or array or frame of shape (n, n_labels)
            Labels; they may all be equal.
        classes : array-like of shape (2,), or list of them, default=None
            Both labels, the larger one is the click; for several labels a pair for each. Required
            in the first call if y has only one of them.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss. The factors are scaled to mean one in each call.

        Returns
        -------
        self : DINClassifier

        Raises
        ------
        ValueError
            For rows of another encoder, labels that are not among the classes, parameters that
            would need another network. The classifier is then as it was before, also where
            training fails or is interrupted (KeyboardInterrupt).
        """
        return self._learn_more(X, y, sample_weight, classes=classes)

    def predict_proba(self, X: ImpressionsLike) -> np.ndarray | list[np.ndarray]:
        """Return the probability of both classes.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        probability : ndarray of shape (n, 2), float32, or list of them
            Columns in the order of ``classes_``. For several labels, a list with an array for
            each, as in scikit-learn.
        """
        logits = self.decision_function(X)  # first, since it checks that the model is fitted
        click = self._target.value_of(logits)
        if click.ndim == 2:
            return [np.stack([1 - column, column], axis=1) for column in click.T]
        return np.stack([1 - click, click], axis=1)

    def decision_function(self, X: ImpressionsLike) -> np.ndarray:
        """Return the log-odds of the click.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        logit : ndarray of shape (n,), or (n, n_labels), float32
        """
        encoded = self._prepare_rows(X)  # first, since it checks that the model is fitted
        return self.net_.score(encoded)

    def predict(self, X: ImpressionsLike) -> np.ndarray:
        """Return the more probable label of each impression.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        label : ndarray of shape (n,), or (n, n_labels)
        """
        is_click = (self.decision_function(X) > 0).astype(int)
        if is_click.ndim == 2:
            pairs = zip(self.classes_, is_click.T, strict=True)
            return np.column_stack([classes[kinds] for classes, kinds in pairs])
        return self.classes_[is_click]

    def score(
        self, X: ImpressionsLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy; for several labels, the fraction of rows that are all correct.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.
        y : array-like of shape (n,), or array or frame of shape (n, n_labels)
            Labels; for several labels, NaN is ignored, and so are rows without any known label.
        sample_weight : array-like of shape (n,), default=None
            Weight of each row.

        Returns
        -------
        accuracy : float
        """
        if not isinstance(getattr(self, "_target", None), Labels):
            return super().score(X, y, sample_weight)
        predicted, labels = self.predict(X), check_label_columns(y, self.label_names_)
        check_consistent_length(predicted, labels, sample_weight)
        is_known = ~np.asarray(is_missing(labels))
        rows = is_known.any(axis=1)
        if not rows.any():
            raise ValueError(
                f"score needs known labels, got {predicted.shape[0]} rows without any. Give rows "
                "of which at least one label is known."
            )
        is_right = (np.where(is_known, labels, predicted) == predicted).all(axis=1)
        weights = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return float(np.average(is_right[rows], weights=weights))

    @property
    def classes_(self) -> np.ndarray | list[np.ndarray]:
        """The labels; the second is the click. Of several labels, both kinds of each."""
        if isinstance(self._target, Labels):
            return [label.classes for label in self._target.labels]
        return self._target.classes

    @property
    def label_names_(self) -> list[str]:
        """Of several labels, the columns of y, or their numbers as text."""
        if not isinstance(self._target, Labels):
            raise AttributeError("label_names_ is there where y had several labels.")
        return list(self._target.names)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


def _training_ranks() -> AbstractContextManager[Alone]:
    """Join the processes that train one model together, where several were started."""
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if not dist.is_available() or (is_alone and not dist.is_initialized()):
        return nullcontext(Alone())
    return ranks().training_ranks()


def _of_net(net: DINNet) -> dict[str, object]:
    """Fitted attributes that show what a net knows."""
    import pandas as pd

    return {
        "net_": net,
        "history_": pd.DataFrame(net.checks_, columns=list(CHECK), dtype=float),
        "n_iter_": net.n_epochs_,
        "novelty_": dict(net.novelty_.shares),
    }
