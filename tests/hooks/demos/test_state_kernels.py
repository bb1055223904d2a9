"""Kernels between states: textbook formulas, digits that survive huge dimensions, means over other queries."""

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel

from mechicl.hooks.demos.similarity import KINDS, state_kernels, state_salience


def test_they_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    demos, query = rng.normal(size=(2, 5, 7)), rng.normal(size=(2, 7))
    found = state_kernels(torch.tensor(demos), torch.tensor(query)).numpy()
    assert found.shape == (2, len(KINDS), 5)
    for item in range(2):
        whole = query[item : item + 1]
        np.testing.assert_allclose(np.exp(found[item, 0] / 0.3**2), rbf_kernel(whole, demos[item], 1 / (2 * 0.3**2))[0])
        np.testing.assert_allclose(found[item, 1], cosine_similarity(whole, demos[item])[0], atol=1e-12)
        np.testing.assert_allclose(found[item, 2], demos[item] @ query[item] / 7**0.5, atol=1e-12)


def test_huge_dimensions_cost_no_digits() -> None:
    """Language models have a few dimensions of 1e4 that all tokens share."""
    demos, query = torch.zeros(1, 2, 576), torch.zeros(1, 576)
    demos[..., 3] = query[..., 3] = 2e4
    demos[0, 1, 5] = 1e-3
    np.testing.assert_allclose(state_kernels(demos, query)[0, 0].numpy(), [0, -0.5e-6], rtol=1e-6)


def test_a_state_of_nothing_is_like_nothing() -> None:
    found = state_kernels(torch.zeros(1, 2, 4), torch.ones(1, 4))
    np.testing.assert_array_equal(found[0].numpy(), [[-2, -2], [0, 0], [0, 0]])


def test_salience_is_the_mean_over_others() -> None:
    rng = np.random.default_rng(1)
    demos, queries = torch.tensor(rng.normal(size=(3, 4, 6))), torch.tensor(rng.normal(size=(5, 6)))
    other = torch.tensor(rng.random((3, 4, 5)) < 0.6)
    other[..., 2] = True
    found = state_salience(demos, queries, other)
    for item, demo in np.ndindex(3, 4):
        kernels = [state_kernels(demos[item], queries[q])[:, demo] for q in range(5) if other[item, demo, q]]
        np.testing.assert_allclose(found[item, :, demo], torch.stack(kernels).mean(0), atol=1e-12)
