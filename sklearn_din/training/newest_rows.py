"""The final pass over the validation rows, so that the model has seen the newest rows."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from skorch import NeuralNet
from torch import Tensor

from sklearn_din.network.batch import Batch
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.optim import set_decay
from sklearn_din.training.validation_checks import ValidationChecks
from sklearn_din.training.weight_average import WeightAverage, share_of_part


def learn_newest_rows(net: NeuralNet) -> None:
    """Train on the validation rows in one pass from the best weights; keep it if it is better.

    The pass is a further check: what it learnt is kept if that is the best one.
    """
    training = net.training_
    checks: ValidationChecks = training.checks
    training.is_refitting = True
    of_epoch = {"dataset_train": training.parts[0][0], "dataset_valid": None}
    with _undo_unless_best(net):
        if net.embedding_l2:
            for learnt, _ in training.parts:
                training.count(learnt)
            decay = training.decay_in(training.parts[-1][0])
            set_decay(net.optimizer_, net.module_, decay)
        net.notify("on_epoch_begin", **of_epoch)
        net.run_single_epoch(
            _batches(net, checks), training=True, prefix="train", step_fn=net.train_step
        )
        net.notify("on_epoch_end", **of_epoch)


def _batches(net: NeuralNet, checks: ValidationChecks) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of the validation rows, part by part in time.

    The weights after each part enter an average that the best ones begin. Each part is predicted by
    the average before it is learnt: the loss over all parts is that of one further check.
    """
    net.module_.load_state_dict(checks.stopping_.best)
    average = checks.average_ = WeightAverage(checks.stopping_.best)
    parts = net.training_.parts
    for number, (train, valid) in enumerate(parts, start=1):
        average.exchange(net.module_)
        checks.predict(net, valid)
        average.exchange(net.module_)
        yield from train
        average.take(net.module_, share_of_part(number, len(parts)))
    average.exchange(net.module_)
    checks.end(net)


@contextmanager
def _undo_unless_best(net: NeuralNet) -> Iterator[None]:
    """Put counts, moments and the order of rows back where no check within is the best one."""
    n_checks, order = len(net.checks_), net.order_.get_state()
    counts = net.occurrences_, net.labels_
    moments = {
        parameter: {name: moment.clone() for name, moment in state.items()}
        for parameter, state in net.optimizer_.state.items()
    }
    try:
        yield
    finally:
        if best_check(net.checks_) not in net.checks_[n_checks:]:
            net.order_.set_state(order)
            net.occurrences_, net.labels_ = counts
            net.optimizer_.state = defaultdict(dict, moments)
