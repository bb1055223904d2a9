"""The hand-built kernel regressor: an identity with Nadaraya-Watson, and what it must not be."""

import numpy as np
import pytest
import torch

from mechicl.organisms.softmax_kernel import kernel_regressor
from mechicl.predictors.kernels import dot_log_kernel, nadaraya_watson, rbf_log_kernel
from mechicl.tasks.regression import RegressionTask

KERNELS = {"bandwidth": rbf_log_kernel, "temperature": dot_log_kernel}


def contexts(dim, n_demos=7, n=40):
    """Random contexts of any size."""
    return RegressionTask(dim=dim, n_demos=n_demos, noise=0.3).sample(n, seed=dim)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("dim", "scale"), [(1, 0.3), (4, 0.05), (10, 1.5), (3, 40.0)])
def test_predictions_are_those_of_nadaraya_and_watson(name, dim, scale):
    """To 1e-10 in float64, from the nearest neighbour to the mean, whatever the number of demonstrations."""
    model = kernel_regressor(dim, **{name: scale})
    for n_demos in (1, 7, 23):
        batch = contexts(dim, n_demos)
        wanted = nadaraya_watson(KERNELS[name](batch.query, batch.x, **{name: scale}), batch.y[..., None])[..., 0]
        np.testing.assert_allclose(model.predict(batch.x, batch.y, batch.query), wanted, atol=1e-10)


def test_the_pattern_is_the_kernel_and_never_the_query():
    """What analyses read at `hook_pattern`: normalised weights of the demonstrations, 0 for the query itself."""
    model, batch = kernel_regressor(3, bandwidth=0.7), contexts(3)
    _, cache = model.run_with_cache(*model.tensors(batch.x, batch.y, batch.query))
    pattern = cache["blocks.0.attn.hook_pattern"][:, 0, -1].numpy()
    kernel = np.exp(rbf_log_kernel(batch.query, batch.x, bandwidth=0.7))
    np.testing.assert_allclose(pattern[:, :-1], kernel / kernel.sum(-1, keepdims=True), atol=1e-12)
    assert (pattern[:, -1] == 0).all()


def test_another_bandwidth_predicts_otherwise_and_order_does_not_matter():
    """The control: the identity is not one of any weights; an average knows no order."""
    batch = contexts(4)
    near, far = (kernel_regressor(4, bandwidth=h).predict(batch.x, batch.y, batch.query) for h in (0.3, 3.0))
    assert np.abs(near - far).max() > 0.1
    turned = kernel_regressor(4, bandwidth=0.3).predict(batch.x[:, ::-1], batch.y[:, ::-1], batch.query)
    np.testing.assert_allclose(turned, near, atol=1e-12)


def test_sensitivity_is_the_slope_of_the_kernel_average():
    """By central differences of the closed form."""
    model, batch, step = kernel_regressor(2, bandwidth=0.9), contexts(2), 1e-5
    slope = model.sensitivity(batch.x, batch.y, batch.query)
    for axis in range(2):
        sides = [
            nadaraya_watson(
                rbf_log_kernel(batch.query + sign * step * np.eye(2)[axis], batch.x, bandwidth=0.9), batch.y[..., None]
            )[..., 0]
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(slope[:, axis], (sides[0] - sides[1]) / (2 * step), atol=1e-7)


def test_float32_and_torchs_random_state():
    """Other dtypes are taken; nothing is drawn."""
    before = torch.get_rng_state()
    model = kernel_regressor(3, temperature=0.5, dtype=torch.float32)
    assert model.dtype == torch.float32
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "numbers", [{}, {"bandwidth": 1.0, "temperature": 1.0}, {"bandwidth": -1.0}, {"temperature": 0.0}]
)
def test_numbers_that_make_no_kernel_are_refused(numbers):
    """One number above 0, and one alone."""
    with pytest.raises(ValueError, match=r"give one of the two|above 0"):
        kernel_regressor(2, **numbers)
    with pytest.raises(ValueError, match="expected 1 or more"):
        kernel_regressor(0, bandwidth=1.0)
