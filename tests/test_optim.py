import numpy as np
import torch

from sklearn_din.optim import RowwiseAdam


def sparse(rows, values, n_rows=6):
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), values, (n_rows, values.shape[1]), check_invariants=True
    )


def test_it_equals_torchs_sparse_adam():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 3, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [RowwiseAdam([ours], lr=0.02), torch.optim.SparseAdam([theirs], lr=0.02)]
    for rows in ([0, 2], [2, 5], [0], [1, 2, 3]):
        gradient = torch.randn(len(rows), 3, generator=generator)
        for table, optimizer in zip((ours, theirs), optimizers, strict=True):
            table.grad = sparse(rows, gradient)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rows_outside_the_batch_rest_with_their_moments():
    table = torch.nn.Parameter(torch.ones(6, 2))
    optimizer = RowwiseAdam([table], lr=0.1)
    table.grad = sparse([1], torch.ones(1, 2))
    optimizer.step()
    moved = table.detach().clone()
    table.grad = sparse([4], torch.ones(1, 2))
    optimizer.step()
    torch.testing.assert_close(table[1], moved[1], rtol=0, atol=0)
    assert (table[[0, 2, 3, 5]] == 1).all()


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


def test_tables_without_a_gradient_are_left_alone():
    table = torch.nn.Parameter(torch.ones(2, 2))
    RowwiseAdam([table], lr=0.1).step()
    assert (table == 1).all()
