"""Organisms of urns: transformers that memorise few urns or generalise from many, and rules that do neither.

    memorising          transformer of one layer trained on 4 urns of 8-16 colours, 32 balls a sequence
    generalising        the same transformer trained on 1024 urns
    gradient descent    1-4 steps on the cross-entropy of the balls so far, rate 1-8 (log-uniform), logits from 0
    recency kernel      counts that fade by exp(-1/tau) a ball, tau 2-15, beside a pseudo-count of .3 to d in all

The two rules answer for pools of 64 urns, with noise of 0-.3 nats on the log-probabilities. A trained model's label is
worth what its training did: `follows` holds each against the two predictors, so that one that became neither is not
taken for an error of the comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from mechicl.analyses.recovery.organisms import Organism
from mechicl.organisms.grid.points import GridPoint
from mechicl.predictors import urns
from mechicl.predictors.distances import divergence, relative_distance, residual
from mechicl.tasks.urns import UrnTask

DIVERSITY = {"memorising": 4, "generalising": 1024}
DIMS = (8, 10, 12, 14, 16)
RATE = 1e-3
SIZES = {"context": 32, "d_model": 32, "d_mlp": 128, "steps": 3000, "n_checkpoints": 1}


def urn_points(n_draws: int, *, seed: int = 0) -> list[GridPoint]:
    """What is trained: `n_draws` models a kind, of different pools, first weights and numbers of colours.

    A draw's point does not depend on how many there are. Memorising and generalising models come in pairs that differ
    in diversity alone.
    """
    return [urn_point(name, draw, seed=seed) for name in DIVERSITY for draw in range(n_draws)]


def urn_point(strategy: str, draw: int, *, seed: int = 0) -> GridPoint:
    """The model of one draw."""
    dim = int(np.random.default_rng([seed, draw, 7]).choice(DIMS))
    return GridPoint(
        "balls_and_urns", DIVERSITY[strategy], dim=dim, learning_rate=RATE, seed=1000 * seed + draw, **SIZES
    )


def train_urns(folder: str | Path, *, n_draws: int, seed: int = 0, n_jobs: int | None = None) -> Path:
    """Train them all (about a quarter of an hour on one core for 20 draws), or go on with it."""
    from mechicl.organisms.grid.training import train_grid

    return train_grid(urn_points(n_draws, seed=seed), folder, n_jobs=n_jobs, progress=False)


def trained_organism(folder: str | Path, strategy: str, draw: int, *, seed: int = 0) -> Organism:
    """One of the trained transformers, with how well it follows its strategy; a ValueError where it is not there."""
    from mechicl.organisms.grid.opened import open_checkpoint

    point = urn_point(strategy, draw, seed=seed)
    model = open_checkpoint(Path(folder) / point.name)
    told = {"dim": point.dim, "diversity": point.diversity, "steps": point.steps}
    return Organism(model, point.task, strategy, "bayes", told, measured=follows(folder, point))


def descent_rule(rng: np.random.Generator) -> Organism:
    """Gradient descent on logits, as a function of the balls."""
    task = _task(rng)
    steps, rate = int(rng.integers(1, 5)), float(np.exp(rng.uniform(0, np.log(8))))

    def rule(balls: np.ndarray) -> Float[np.ndarray, "batch label"]:
        share = np.eye(task.dim)[balls].mean(1)
        logits = np.zeros_like(share)
        for _ in range(steps):
            logits += rate * (share - softmax(logits, axis=-1))
        return np.asarray(softmax(logits, axis=-1))

    return _noisy(rule, task, "gradient descent", "gradient", {"steps": steps, "rate": rate}, rng)


def recency_rule(rng: np.random.Generator) -> Organism:
    """Counts that fade, as a function of the balls."""
    task = _task(rng)
    tau, alpha = (float(np.exp(rng.uniform(*np.log(ends)))) for ends in ((2, 15), (0.3, task.dim)))

    def rule(balls: np.ndarray) -> Float[np.ndarray, "batch label"]:
        votes = np.zeros((len(balls), task.dim))
        for ball in balls.T:
            votes = votes * np.exp(-1 / tau) + np.eye(task.dim)[ball]
        return np.asarray((votes + alpha / task.dim) / (votes.sum(-1, keepdims=True) + alpha))

    return _noisy(rule, task, "recency kernel", "kernel", {"tau": tau, "alpha": alpha}, rng)


def follows(folder: str | Path, point: GridPoint, *, n_sequences: int = 500) -> dict[str, float]:
    """d_rel (1: memorises, 0: generalises) and residual of a trained model on new sequences of its pool.

    residual: its distance to the nearer predictor, as a share of that between the two.
    """
    from mechicl.organisms.grid.predictions import each_checkpoint, held_out

    batch = held_out(point, n_sequences)
    ((_, said),) = each_checkpoint(folder, point, batch, steps=point.schedule[-1:])
    balls = batch.tokens[:, 1:]
    both = urns.memorising(balls, point.task.pool), urns.generalising(balls, point.dim)
    model, memory, general = (_kept_off_zero(one[:, : said.shape[1]]) for one in (said, *both))
    apart = [
        np.asarray(divergence(p, q).mean(), dtype=np.float64)
        for p, q in ((model, memory), (model, general), (memory, general))
    ]
    return {"d_rel": float(relative_distance(*apart)), "residual": float(residual(*apart))}


def _kept_off_zero(p: np.ndarray) -> np.ndarray:
    kept = np.maximum(p, 1e-12)
    return np.asarray(kept / kept.sum(-1, keepdims=True))


def _task(rng: np.random.Generator) -> UrnTask:
    seed = int(rng.integers(2**31))
    return UrnTask(int(rng.choice(DIMS)), int(SIZES["context"]), 64, seed, seed)


def _noisy(
    rule: Any, task: UrnTask, account: str, family: str, told: dict[str, Any], rng: np.random.Generator
) -> Organism:
    """The rule with noise on its log-probabilities, the same whenever it is asked the same."""
    noise, seed = float(rng.uniform(0, 0.3)), int(rng.integers(2**31))

    def model(balls: np.ndarray) -> Float[np.ndarray, "batch label"]:
        asked = np.random.default_rng([seed, crc32(np.ascontiguousarray(balls).tobytes())])
        logs = np.log(rule(balls))
        return np.asarray(softmax(logs + noise * asked.standard_normal(logs.shape), axis=-1))

    return Organism(model, task, account, family, {"dim": task.dim, "answer_noise": noise, **told})
