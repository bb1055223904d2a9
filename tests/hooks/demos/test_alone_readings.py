"""Texts run alone: what a plain run says, each once while there is room, and the kernel of two predictions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from mechicl.hooks.demos.alone import AloneRuns, prediction_kernel
from mechicl.hooks.wrapper import wrap

TEXTS = [(0, 5, 6), (0, 7), (0, 8, 9, 10, 11), (0, 5, 6), (0, 12, 7)]


def runs(model: Any, memory: int = 1 << 20, budget: int = 1 << 30) -> AloneRuns:
    return AloneRuns(wrap(model), memory=memory, budget=budget)


@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_they_are_plain_runs(budget: int, known_model: Callable[..., Any]) -> None:
    model = known_model("gpt2", True)
    with torch.no_grad():
        found = runs(model, budget=budget).read(TEXTS)
        for text in TEXTS:
            logits, cache = model.run_with_cache(torch.tensor([text]))
            np.testing.assert_allclose(found[text].log_probs, logits[0, -1].log_softmax(-1), atol=1e-10)
            names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
            expected = torch.stack([cache[name][0, -1] for name in names])
            np.testing.assert_allclose(found[text].states, expected, atol=1e-10)


def test_a_text_is_run_once_while_it_is_remembered(known_model: Callable[..., Any]) -> None:
    model = known_model("gpt2", True)
    with torch.no_grad():
        roomy = runs(model)
        roomy.read(TEXTS)
        roomy.read(TEXTS[::-1])
        assert roomy.n_runs == 4
        narrow = runs(model, memory=2 * 4 * (model.cfg.d_vocab + 3 * model.cfg.d_model))
        found = narrow.read(TEXTS)  # more at once than are remembered: all are handed over all the same
        assert set(found) == set(TEXTS) and narrow.n_runs == 4 and set(narrow.known) == {(0, 8, 9, 10, 11), (0, 12, 7)}
        narrow.read(TEXTS[-1:])
        assert narrow.n_runs == 4
        narrow.read([(0, 7)])
        assert narrow.n_runs == 5 and set(narrow.known) == {
            (0, 12, 7),
            (0, 7),
        }  # the one read longest ago was forgotten


def test_predictions_are_alike_by_their_product() -> None:
    rng = np.random.default_rng(0)
    demos, queries = (torch.tensor(4 * rng.normal(size=(n, 50))).log_softmax(-1) for n in (6, 3))
    found = prediction_kernel(demos.exp(), queries.exp())
    for q, d in np.ndindex(3, 6):
        assert found[q, d] == pytest.approx(logsumexp((demos[d] + queries[q]).numpy()), abs=1e-12)


def test_predictions_that_share_next_to_nothing_stay_finite() -> None:
    """Probabilities of e^-150 are 0 in single precision, and their products are in any."""
    demos, queries = torch.full((2, 1, 4), -150.0, dtype=torch.float64)
    demos[0, 0], queries[0, 1] = 0.0, 0.0
    expected = logsumexp((demos + queries).numpy())
    np.testing.assert_allclose(prediction_kernel(demos.exp(), queries.exp()), [[expected]], atol=1e-9)
