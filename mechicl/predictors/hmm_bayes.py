"""The exact Bayesian prediction for prompts from a mixture of HMMs, after every number of demonstrations.

    P(Y | prompt) = sum_theta P(theta | prompt) P_theta(Y | x_test)
    P(theta | prompt) ~ P(theta) prod_i P_theta(x_i, y_i) P_theta(x_test)        (switch = 0)

With `switch` > 0 the task is drawn anew after a delimiter with that probability, and the posterior is filtered from
demonstration to demonstration. This is what a perfect language model of the pre-training text predicts. Predictions
are probabilities of the m observations, given that no delimiter comes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax

from mechicl.tasks.hmm import HMMMixture
from mechicl.tasks.hmm_prompts import HMMPrompts


def posterior_prediction(
    mixture: HMMMixture, prompts: HMMPrompts, counts: Sequence[int] | None = None
) -> Float[np.ndarray, "count batch vocab"]:
    """P(Y | prompt) with the first n demonstrations, for each n of `counts` (default: with all of them).

    Raises ValueError for counts that the prompts do not have, and prompts that no task can make.
    """
    posterior = task_posterior(mixture, prompts, counts)
    return np.einsum("nbt,btv->nbv", posterior, mixture.next_probs(prompts.query))


def task_posterior(
    mixture: HMMMixture, prompts: HMMPrompts, counts: Sequence[int] | None = None
) -> Float[np.ndarray, "count batch task"]:
    """P(theta | prompt), the task of the query, with the first n demonstrations; errors as `posterior_prediction`."""
    n_demos = prompts.y.shape[1]
    chosen = [n_demos] if counts is None else list(counts)
    if not chosen or min(chosen) < 0 or max(chosen) > n_demos:
        raise ValueError(f"got counts={chosen}; expected numbers from 0 to {n_demos}, the prompts' demonstrations")
    pairs, _ = mixture.forward(np.concatenate([prompts.x, prompts.y[..., None]], axis=-1))
    query, _ = mixture.forward(prompts.query)
    with np.errstate(divide="ignore"):
        prior = np.log(mixture.prior)
    reached = _filtered(pairs, prior, mixture.switch, chosen) + query
    impossible = np.isneginf(reached).all(-1)
    if impossible.any():
        raise ValueError(
            f"{int(impossible.any(0).sum())} of {len(prompts)} prompts can be made by no task of the mixture"
        )
    return np.asarray(softmax(reached, axis=-1))


def true_prediction(mixture: HMMMixture, prompts: HMMPrompts) -> Float[np.ndarray, "batch vocab"]:
    """P_theta(Y | x_test) with the prompt's own task: what no prompt can tell more than."""
    return mixture.next_probs(prompts.query)[np.arange(len(prompts)), prompts.task]


def label_probs(mixture: HMMMixture, length: int) -> Float[np.ndarray, "task vocab"]:
    """P_theta(Y) of the observation after `length` others, whatever these are: what labels alone can teach."""
    belief = np.eye(mixture.n_states)[mixture.start][:, None]
    for _ in range(length):
        belief = belief @ mixture.transitions
    return np.asarray((belief @ mixture.emissions)[:, 0])


def _filtered(
    pairs: Float[np.ndarray, "batch demo task"], prior: Float[np.ndarray, "task"], switch: float, counts: Sequence[int]
) -> Float[np.ndarray, "count batch task"]:
    """Log-weights of tasks before the query, after each number of demonstrations."""
    known: dict[int, np.ndarray] = {0: np.broadcast_to(prior, (len(pairs), len(prior)))}
    if switch == 0:
        weight, done = known[0], 0
        for n in sorted(set(counts) - {0}):
            weight = known[n] = weight + pairs[:, done:n].sum(1)
            done = n
        return np.stack([known[n] for n in counts])
    weight = known[0]
    with np.errstate(divide="ignore"):
        stay, leave = np.log1p(-switch), np.log(switch) + prior
    for n in range(1, max(counts) + 1):
        weight = weight + pairs[:, n - 1]
        total = logsumexp(weight, axis=-1, keepdims=True)
        possible = np.isfinite(total)  # a prompt that no task can make stays at -inf, and is refused at the end
        total = np.where(possible, total, 0.0)
        weight = np.where(possible, np.logaddexp(stay + weight - total, leave), -np.inf)
        if n in counts:
            known[n] = weight
    return np.stack([known[n] for n in counts])
