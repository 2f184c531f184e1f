import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from sklearn_din.training.optim import RowwiseAdam


def sparse(rows, values, n_rows=6):
    shape = n_rows, values.shape[1]
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, shape, check_invariants=True)


def by_the_formula(table, batches, *, lr, starts, beta=0.999, eps=1e-8):
    """One row and one vocabulary after the other, in float64."""
    table = table.astype(float).copy()
    square = np.zeros(len(table))
    vocabulary = np.searchsorted(starts, np.arange(len(table)), side="right") - 1
    seen = [[] for _ in starts]  # by vocabulary: (batch, mean square of its touched rows)
    for batch, (rows, gradient) in enumerate(batches):
        for v in range(len(starts)):
            own = [i for i, row in enumerate(rows) if vocabulary[row] == v]
            if own:
                seen[v].append((batch, np.mean([np.mean(gradient[i] ** 2) for i in own])))
        for i, row in enumerate(rows):
            square[row] = beta * square[row] + (1 - beta) * np.mean(gradient[i] ** 2)
            ages, means = np.array(seen[vocabulary[row]]).T
            typical = np.average(means, weights=beta ** (batch - ages))
            table[row] -= lr * gradient[i] / (np.sqrt(square[row] + typical) + eps)
    return table


@pytest.mark.parametrize("starts", [[0], [0, 2, 5]], ids=["one vocabulary", "three"])
@pytest.mark.parametrize("beta", [0.999, 0.6])
def test_it_equals_the_formula_row_by_row(starts, beta):
    rng = np.random.RandomState(0)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    batches = [
        (rows, rng.normal(size=(len(rows), 3)).astype(np.float32))
        for rows in ([0, 2], [2, 5], [0], [1, 2, 3], [5], [0, 1, 2, 3, 4, 5])
    ]
    table = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = RowwiseAdam([table], lr=0.02, betas=(0.9, beta), starts=torch.tensor(starts))
    for rows, gradient in batches:
        table.grad = sparse(rows, torch.from_numpy(gradient))
        optimizer.step()
    expected = by_the_formula(start, batches, lr=0.02, starts=starts, beta=beta)
    np.testing.assert_allclose(table.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_mini_batch_aware_l2_equals_the_papers_loop():
    strength, counts = 0.5, np.array([1, 4, 2, 0, 1, 1])
    decay = torch.from_numpy(strength / np.maximum(counts, 1)).float()
    plain, regular = (torch.nn.Parameter(torch.full((6, 2), 0.3)) for _ in range(2))
    ours = RowwiseAdam([regular], lr=0.1, decay=decay)
    twin = RowwiseAdam([plain], lr=0.1)
    for rows in ([0, 1], [1, 2]):
        gradient = torch.full((2, 2), 0.01)
        by_hand = gradient.clone()
        for i, row in enumerate(rows):
            by_hand[i] += strength / counts[row] * plain.detach()[row]
        regular.grad, plain.grad = sparse(rows, gradient), sparse(rows, by_hand)
        ours.step()
        twin.step()
    torch.testing.assert_close(regular, plain)
    assert (regular[3:] == 0.3).all()


@pytest.mark.parametrize("is_whole", [True, False], ids=["parameter whole", "part of a tensor"])
def test_dense_parameters_take_the_steps_of_torchs_adam(is_whole):
    ours, twin = (torch.nn.Parameter(torch.linspace(-1, 1, 6).view(3, 2)) for _ in range(2))
    if not is_whole:
        ours.data = torch.cat([ours, ours], dim=1).detach()[:, :2]
    optimizers = RowwiseAdam([ours], lr=0.01), torch.optim.Adam([twin], lr=0.01)
    for step in range(20):
        ours.grad = twin.grad = torch.sin(torch.arange(6.0) + step).view(2, 3).t() / 10**step
        if step < 5:
            ours.grad = ours.grad.contiguous()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, twin, rtol=1e-6, atol=1e-12)


def test_hooks_of_a_step_are_called():
    optimizer, called = RowwiseAdam([torch.nn.Parameter(torch.ones(3))], lr=0.1), []
    before = optimizer.register_step_pre_hook(lambda *args: called.append("before"))
    after = optimizer.register_step_post_hook(lambda *args: called.append("after"))
    optimizer.step(lambda: called.append("closure"))
    assert called == ["before", "closure", "after"]
    before.remove()
    after.remove()
    for_all = register_optimizer_step_post_hook(lambda *args: called.clear())
    optimizer.step()
    for_all.remove()
    assert not called


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step", "square", "total"])
def test_a_state_of_other_sizes_is_refused(name):
    table, bias = (torch.nn.Parameter(torch.ones(size)) for size in ((6, 2), (3,)))
    optimizer = RowwiseAdam([table, bias], lr=0.1)
    table.grad, bias.grad = sparse([0, 4], torch.ones(2, 2)), torch.ones(3)
    optimizer.step()
    optimizer.load_state_dict(state := optimizer.state_dict())
    next(part for part in state["state"].values() if name in part)[name] = torch.zeros(5)
    with pytest.raises(ValueError, match=rf"sizes of its parameters: {name} needs .*, got \(5,\)"):
        optimizer.load_state_dict(state)
    assert all(moment.shape != (5,) for own in optimizer.state.values() for moment in own.values())
