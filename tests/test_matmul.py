import pytest
import torch

from sklearn_din.network.matmul import (
    N_IMAGES,
    matmul,
    matmul_added,
    matmul_transposed,
    padded_length,
)

SHAPES = [(1024, 100, 200), (4864, 72, 64), (4096, 16, 128), (4097, 72, 64), (20, 3, 2), (0, 3, 2)]
SWITCH = "sklearn_din.network.matmul.ONEDNN_IS_FASTER"


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def asks_onednn(run):
    with torch.profiler.profile() as profiler:
        run()
    return any("convolution" in event.key for event in profiler.key_averages())


@pytest.mark.parametrize("onednn_is_faster", [True, False])
@pytest.mark.parametrize(("n", "k", "m"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_those_of_torchs_operator(n, k, m, dtype, onednn_is_faster, monkeypatch):
    monkeypatch.setattr(SWITCH, onednn_is_faster)
    left, right, bias = random(n, k, dtype=dtype), random(k, m, dtype=dtype), random(m, dtype=dtype)
    close = {"rtol": 1e-4, "atol": 2e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(matmul(left, right), left @ right, **close)
    torch.testing.assert_close(matmul(left, right, bias), left @ right + bias, **close)
    torch.testing.assert_close(matmul(left, right.t().contiguous().t()), left @ right, **close)
    total = random(n, m, dtype=dtype)
    torch.testing.assert_close(
        matmul_added(total.clone(), left, right), total + left @ right, **close
    )
    strided = random(n, k + 3, dtype=dtype)[:, :k]
    torch.testing.assert_close(matmul(strided, right), strided @ right, **close)
    other = random(n, m, dtype=dtype)
    found = matmul_transposed(left, other)
    torch.testing.assert_close(found, left.t() @ other, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_large_matrices_go_to_onednn_and_small_ones_do_not(n_threads, monkeypatch):
    monkeypatch.setattr(SWITCH, True)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        large, small = random(4864, 72), random(64, 72)
        weight, scores = random(72, 64), random(4864, 64)
        assert asks_onednn(lambda: matmul(large, weight))
        assert asks_onednn(lambda: matmul_transposed(large, scores))
        assert not asks_onednn(lambda: matmul(small, weight))
        assert not asks_onednn(lambda: matmul(large.double(), weight.double()))
    finally:
        torch.set_num_threads(before)


def test_onednn_is_not_asked_where_mkl_is_as_fast(monkeypatch):
    monkeypatch.setattr(SWITCH, False)
    large, weight, scores = random(4864, 72), random(72, 64), random(4864, 64)
    assert not asks_onednn(lambda: matmul(large, weight))
    assert not asks_onednn(lambda: matmul_transposed(large, scores))


def test_lengths_are_padded_by_little_to_few_that_come_again():
    lengths = {n: padded_length(n) for n in range(70_000)}
    assert all(n <= padded <= n * 33 / 32 for n, padded in lengths.items())
    assert len({p for n, p in lengths.items() if 1 << 14 <= n < 1 << 15}) <= 33
    assert all(p % N_IMAGES == 0 for n, p in lengths.items() if n >= 1024)
