"""One way to ask any regressor: a model of `mechicl.organisms`, its `predict`, or a function of the user's own.

A regressor maps demonstrations x [*batch, demo, dim], y [*batch, demo] and a query [*batch, dim] to one prediction a
context [*batch].
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.tasks.regression import Regressions
from mechicl.untrained import shuffled_weights

LIMIT = 1e6  # of what a control may say


def owner_of(model: Any) -> Any:
    """The model whose bound `predict` was given; anything else is its own owner."""
    bound = getattr(model, "__self__", None)
    return bound if hasattr(bound, "predict") else model


def predictions(
    model: Any,
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
) -> Float[np.ndarray, "*batch"]:
    """The regressor's predictions in float64; a ValueError for a wrong shape and for numbers that are not finite."""
    call = model.predict if hasattr(model, "predict") else model
    if not callable(call):
        raise ValueError(f"got a {type(model).__name__}; expected a function (x, y, query), or a model with `predict`")
    found = np.asarray(call(x, y, query), dtype=np.float64)
    if found.shape != y.shape[:-1]:
        raise ValueError(f"the regressor gave shape {found.shape}, expected {y.shape[:-1]}: one prediction a context")
    if not np.isfinite(found).all():
        raise ValueError(
            f"the regressor gave {int((~np.isfinite(found)).sum())} of {found.size} predictions that are not finite; "
            "drop these contexts, or mend the regressor"
        )
    return found


def predict_all(model: Any, contexts: Regressions) -> Float[np.ndarray, " batch"]:
    """The regressor's predictions for contexts."""
    return predictions(model, contexts.x, contexts.y, contexts.query)


class Bounded:
    """A control whose numbers cannot overflow: random layers of linear attention cube their inputs one after another.

    What is not finite counts as 0, and what is larger than `LIMIT` as that.
    """

    def __init__(self, model: Any) -> None:
        self.model = owner_of(model)

    def predict(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Bounded predictions."""
        call = self.model.predict if hasattr(self.model, "predict") else self.model
        return _bounded(call(x, y, query))

    def states(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Bounded states."""
        return _bounded(self.model.states(x, y, query))

    def slopes(self, contexts: Regressions, step: float) -> np.ndarray:
        """Bounded slopes."""
        return _bounded(slopes(self.model if hasattr(self.model, "sensitivity") else self.predict, contexts, step=step))


def _bounded(values: np.ndarray) -> np.ndarray:
    found = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(found, -LIMIT, LIMIT)


def slopes(model: Any, contexts: Regressions, *, step: float = 1e-5) -> Float[np.ndarray, "batch dim"]:
    """d yhat / d x_q: by automatic differentiation where the model has `sensitivity`, else by central differences.

    `step`, in units of the query's root mean square, is for differences alone; a float32 function needs about 1e-2.
    """
    x, y, query = contexts.x, contexts.y, contexts.query
    own = owner_of(model)
    if hasattr(own, "sensitivity"):
        return np.asarray(own.sensitivity(x, y, query), dtype=np.float64)
    width = step * float(np.sqrt((query**2).mean()))
    found = np.empty_like(query)
    for entry in range(query.shape[-1]):
        moved = np.zeros(query.shape[-1])
        moved[entry] = width
        up, down = (predictions(model, x, y, query + sign * moved) for sign in (1, -1))
        found[:, entry] = (up - down) / (2 * width)
    return found


def untrained_of(model: Any, untrained: Any, *, seed: int) -> Bounded | None:
    """The control: what the user gave, else the model with its weights in random order, else None for a function."""
    if untrained is not None:
        return Bounded(untrained)
    own = owner_of(model)
    known = hasattr(own, "parameters") and hasattr(own, "predict")
    return Bounded(shuffled_weights(own, seed=seed)) if known else None


def take(contexts: Regressions, rows: Any) -> Regressions:
    """Some of the contexts."""
    parts = (contexts.x, contexts.y, contexts.query, contexts.target, contexts.weights)
    return Regressions(*(part[rows] for part in parts))


def halves(contexts: Regressions, *, seed: int, least: int = 8) -> tuple[Regressions, Regressions]:
    """Two halves, drawn at random: one to choose on, one to judge by. A ValueError for too few contexts."""
    if len(contexts) < 2 * least:
        raise ValueError(f"got {len(contexts)} contexts; expected {2 * least} or more, to choose on half of them")
    order = np.random.default_rng(seed).permutation(len(contexts))
    middle = len(order) // 2
    return take(contexts, order[:middle]), take(contexts, order[middle:])


def facts_of(model: Any) -> dict[str, Any]:
    """What a result records of the regressor; of a plain function its name alone."""
    own = owner_of(model)
    if not hasattr(own, "named_parameters"):
        return {"model": getattr(own, "__name__", type(own).__name__)}
    weights = sorted(own.named_parameters(), key=lambda item: item[0])
    digest = hashlib.sha256()
    for name, weight in weights:
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    first = weights[0][1]
    return {
        "model": getattr(own, "name", "") or "custom",
        "family": type(own).__name__,
        "n_params": sum(weight.numel() for _, weight in weights),
        "weights_sha256": digest.hexdigest(),
        "device": first.device.type,
        "dtype": str(first.dtype).removeprefix("torch."),
    }
