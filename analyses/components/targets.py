"""What a model's states are asked for: the quantities that each strategy works with, at every position that predicts.

strategy        target            balls and urns, Markov chains     classification       regression
generalising    prediction        log G                             log-odds of G        mean of G
generalising    counts            of each next outcome so far       -                    -
memorising      prediction        log M                             log-odds of M        mean of M
memorising      posterior         over the pool's tasks             over its items       -
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax
from torch import Tensor

from mechicl.analyses.components.held_out import HeldOut
from mechicl.predictors import classification

MOST_TASKS = 256  # a posterior over more is left out


@dataclass(frozen=True, eq=False)
class ProbeTarget:
    """One quantity; beside: those that the other strategy works with."""

    strategy: str
    name: str
    values: Float[np.ndarray, "batch pos _"]
    beside: Float[np.ndarray, "batch pos _"]

    def at(self, positions: Int[np.ndarray, " _"]) -> ProbeTarget:
        """At some of the positions."""
        return ProbeTarget(self.strategy, self.name, self.values[:, positions], self.beside[:, positions])


def probe_targets(held: HeldOut) -> list[ProbeTarget]:
    """All targets that the setting has."""
    general, memory = _scores(held, held.generalising), _scores(held, held.memorising)
    counts = _counts(held)
    known = [general] if counts is None else [general, counts]
    found = [ProbeTarget("generalising", "prediction", general, memory)]
    if counts is not None:
        found.append(ProbeTarget("generalising", "counts", counts, memory))
    beside = np.concatenate(known, -1)
    found.append(ProbeTarget("memorising", "prediction", memory, beside))
    posterior = _posterior(held, counts) if held.point.diversity <= MOST_TASKS else None
    if posterior is not None:
        found.append(ProbeTarget("memorising", "posterior", posterior, beside))
    return found


def read_positions(held: HeldOut, states: Tensor) -> Float[np.ndarray, "batch pos d_model"]:
    """States [batch, pos, d_model] at the positions that predict, in float64."""
    own = {"classification": slice(-1, None), "linear_regression": slice(0, None, 2)}
    return states[:, own.get(held.point.setting, slice(None))].double().cpu().numpy()


def _scores(held: HeldOut, said: Float[np.ndarray, "batch pos label"]) -> Float[np.ndarray, "batch pos _"]:
    if held.point.setting == "linear_regression":
        return said
    if held.point.setting == "classification":
        return np.log(said[..., 1:] / said[..., :1])
    return np.log(said)


def _counts(held: HeldOut) -> Float[np.ndarray, "batch pos label"] | None:
    """How often each outcome followed so far: of all positions (urns), or of those with the present state (chains)."""
    dim = held.point.dim
    if held.point.setting == "balls_and_urns":
        return _before(np.eye(dim)[held.truth])
    if held.point.setting == "markov_chains":  # G = (count + 1) / (all + d) of the present row
        moves = np.zeros((*held.truth.shape, dim))
        for t in range(1, held.truth.shape[1]):
            same = held.truth[:, : t - 1] == held.truth[:, t - 1 : t]
            moves[:, t] = (same[..., None] * np.eye(dim)[held.truth[:, 1:t]]).sum(1)
        return moves
    return None


def _posterior(held: HeldOut, counts: np.ndarray | None) -> Float[np.ndarray, "batch pos _"] | None:
    """The memorising predictor's weights of the pool's tasks."""
    task = held.point.task
    if held.point.setting == "balls_and_urns" and counts is not None:
        return np.asarray(softmax(counts @ np.log(task.pool).T, axis=-1))
    if held.point.setting == "markov_chains":
        return np.asarray(softmax(_chain_evidence(held.truth, task.pool), axis=-1))
    if held.point.setting == "classification":  # every item as a label of its own
        each = np.arange(task.diversity)
        found = classification.memorising(
            held.batch.query, task.pool, each, noise=task.noise, n_labels=max(task.diversity, 2), floor=0.0
        )
        return found[:, None, : task.diversity]
    return None


def _chain_evidence(
    states: Int[np.ndarray, "batch pos"], pool: Float[np.ndarray, "_ dim dim"]
) -> Float[np.ndarray, "batch pos _"]:
    found = np.zeros((*states.shape, len(pool)))
    moves = np.log(pool)[:, states[:, :-1], states[:, 1:]]
    found[:, 2:] = np.moveaxis(moves.cumsum(-1), 0, -1)[:, :-1]
    return found


def _before(values: Float[np.ndarray, "batch pos label"]) -> Float[np.ndarray, "batch pos label"]:
    """The sum over earlier positions."""
    return np.asarray(values.cumsum(1) - values)
