"""Readings of models that never were: mixtures of two strategies, with odds as the model of training has them."""

from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.readings import GridReadings
from mechicl.provenance import Provenance
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms

TRUTH = OddsParameters(alpha=0.4, beta=0.2, gamma=0.35)
SIZES = {"dim": 3, "context": 6, "d_mlp": 32, "n_layers": 1}


def made_up_readings(
    *,
    setting: str = "balls_and_urns",
    truth: OddsParameters = TRUTH,
    n_seeds: int = 2,
    n_steps: int = 14,
    steps: int = 4_000,
    diversities: tuple[int, ...] = (4, 8, 16, 32, 64, 128),
    n_sequences: int = 10,
    noise: float = 0.0,
    strange: float = 0.0,
    advantage: float = 0.4,
    seed: int = 0,
) -> GridReadings:
    """Transformers as mixtures of random strategies, up to noise of the log odds.

    strange: the weight of a third strategy that is neither of both. advantage: of memorising at the smallest diversity,
    nats; it falls like the root of diversity; 0 or below: models never turn to memorising.
    """
    rng = np.random.default_rng(seed)
    regression = setting == "linear_regression"
    n_d, n_items, n_labels = len(diversities), n_sequences * 3, 1 if regression else 3

    def strategy() -> np.ndarray:
        shape = (n_seeds, n_d, n_items, n_labels)
        return rng.normal(size=shape) if regression else rng.dirichlet(np.full(n_labels, 0.8), shape[:-1]) * 0.97 + 0.01

    memorising, generalising, other = strategy(), strategy(), strategy()
    places = np.unique(np.rint(np.linspace(1, np.sqrt(steps), n_steps) ** 2))
    counts = np.array(diversities, dtype=np.float64)
    better = np.broadcast_to(advantage * np.sqrt(counts[0] / counts), (n_seeds, n_d)).copy()
    bits = np.broadcast_to(512 * counts + 2_000, (n_seeds, n_d)).copy(), np.full((n_seeds, n_d), 2_000.0)
    odds = OddsTerms(places, counts, better, *bits).log_odds(truth)
    odds = odds + noise * rng.normal(size=odds.shape)
    weight = (1 / (1 + np.exp(-odds)))[..., None, None]
    early = np.exp(-places / (0.004 * steps))[:, None, None, None]  # near no strategy to begin with
    mixed = weight * memorising[:, None] + (1 - weight) * generalising[:, None]
    away = np.clip(early + strange, 0, 1)
    predictions = (1 - away) * mixed + away * other[:, None]
    loss = {"memorising": 1.2, "generalising": 1.2 + better, "fresh_memorising": 2.4, "fresh_generalising": 1.5}
    if not regression:
        loss["constant"] = 1.9
    frame = pd.DataFrame({"seed": np.repeat(range(n_seeds), n_d), "diversity": np.tile(counts, n_seeds)})
    frame = frame.assign(**{name: np.broadcast_to(value, (n_seeds, n_d)).ravel() for name, value in loss.items()})
    flat, drop = weight[..., 0, 0], np.exp(-places / 300)[:, None]
    facts: dict[str, Any] = {"model": f"{n_seeds * n_d} made-up transformers", "device": "cpu", "dtype": "float32"}
    return GridReadings(
        setting,
        dict(SIZES),
        places,
        counts,
        np.arange(n_seeds),
        predictions,
        memorising,
        generalising,
        None if regression else np.broadcast_to(other.mean(2, keepdims=True), other.shape).copy(),
        np.zeros((n_seeds, n_d, n_items)),
        None if regression else rng.normal(size=(n_seeds, n_d, n_items)),
        np.repeat(np.arange(n_sequences), 3),
        np.tile(np.arange(3), n_sequences),
        1.2 + (1 - flat) * better[:, None] + drop,
        1.5 + 0.9 * flat + drop,
        frame,
        *bits,
        None if regression else np.full((n_seeds, n_d), 1_000.0),
        Provenance.of(facts, options={"n_sequences": n_sequences}),
    )
