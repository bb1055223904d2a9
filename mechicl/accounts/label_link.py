"""One link from what an account says of labels to what a language model says of them, so that none wins by calibration.

    q -> (1 - mixed) q + mixed u        u: all labels that may be answered alike
    p(y) proportional to q(y)^sharpness exp(bias_y)

sharpness is 0 or above: an account that points the wrong way is worth as much as one that says nothing. The biases, of
a model that likes to say some label, are there only where the labels are few and the same in every prompt. In logs p is
linear in sharpness and biases, so for a given `mixed` the nearest p is found by Newton's method on a convex function;
many accounts are fitted at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_STEPS, _HALVINGS = 60, 30
_DAMPING = 1e-9  # of the curvature: the biases are known up to a constant only
_SMALL = 1e-11  # what a step may still gain, in nats, without being taken


@dataclass(frozen=True, eq=False)
class LogLinear:
    """Fitted log-linear predictions, one for each set of features.

    weights: of the features, 0 or above. bias: of the labels, 0 where there is none. distance: the mean over contexts
    of KL(target || fitted), nats.
    """

    weights: Float[np.ndarray, "set _"]
    bias: Float[np.ndarray, "set label"]
    distance: Float[np.ndarray, " set"]


def mixed_votes(
    q: Float[np.ndarray, "*set batch label"],
    allowed: Bool[np.ndarray, "batch label"],
    mixed: float | Float[np.ndarray, "*set 1 1"],
) -> Float[np.ndarray, "*set batch label"]:
    """log[(1 - mixed) q + mixed u] of the labels that may be answered; 0 for the others.

    Raises ValueError for votes below 0, and `mixed` not above 0 and below 1: votes may be 0, whose logarithm is none.
    """
    if (q < 0).any() or not np.all((np.asarray(mixed) > 0) & (np.asarray(mixed) < 1)):
        raise ValueError(f"got votes from {q.min()} and mixed={mixed}; expected votes of 0 or more, and 0 < mixed < 1")
    uniform = allowed / allowed.sum(-1, keepdims=True)
    return np.asarray(np.log(np.where(allowed, (1 - mixed) * q + mixed * uniform, 1.0)))


def linked(
    features: Float[np.ndarray, "*set batch label _"],
    allowed: Bool[np.ndarray, "batch label"],
    weights: Float[np.ndarray, "*set _"],
    bias: Float[np.ndarray, "*set label"],
) -> Float[np.ndarray, "*set batch label"]:
    """p(y) proportional to exp(sum_k weights_k features_yk + bias_y) over the labels that may be answered."""
    return _softmax((features @ weights[..., None, :, None])[..., 0] + bias[..., None, :], allowed)


def fit_log_linear(
    features: Float[np.ndarray, "set batch label _"],
    target: Float[np.ndarray, "batch label"],
    allowed: Bool[np.ndarray, "batch label"],
    *,
    with_bias: bool,
) -> LogLinear:
    """The weights and biases of least mean KL(target || fitted), for every set of features.

    Weights below 0 are put to 0 and the others fitted again (exact for one feature). features: 0 where a label may not
    be answered. target: probabilities, 0 there.
    """
    n_sets, n_features = features.shape[0], features.shape[-1]
    used = np.ones((n_sets, n_features), dtype=bool)
    theta = np.zeros((n_sets, n_features + target.shape[1]))
    todo = np.arange(n_sets)
    while len(todo):
        own = features[todo] * used[todo][:, None, None, :]
        theta[todo] = _newton(own, target, allowed, with_bias)
        weights = np.where(used, theta[:, :n_features], 0.0)[todo]
        theta[todo, :n_features] = weights
        if not n_features:
            break
        wrong = (weights < 0).any(-1)
        used[todo[wrong], weights[wrong].argmin(-1)] = False
        todo = todo[wrong]
    weights, bias = theta[:, :n_features], theta[:, n_features:]
    return LogLinear(weights, bias, _distances(features, target, allowed, theta))


# what follows runs some thousand times in a fit, and is spared the checks of shapes


def _newton(
    features: np.ndarray,
    target: np.ndarray,
    allowed: np.ndarray,
    with_bias: bool,
) -> np.ndarray:
    """Weights and biases side by side."""
    theta = np.zeros((len(features), features.shape[-1] + target.shape[1]))
    value = _distances(features, target, allowed, theta)
    todo = np.arange(len(features))  # the sets that still move
    for _ in range(_STEPS):
        slope, curvature = _derivatives(features[todo], target, allowed, theta[todo], with_bias)
        size = np.trace(curvature, axis1=1, axis2=2)[:, None, None]
        damped = curvature + _DAMPING * (size + 1e-3) * np.eye(theta.shape[1])
        step = -np.linalg.solve(damped, slope[..., None])[..., 0]
        moved = _line_search(features[todo], target, allowed, theta[todo], step, value[todo])
        gain = value[todo] - moved[1]
        theta[todo], value[todo] = moved
        todo = todo[gain > _SMALL]
        if not len(todo):
            break
    return theta


def _line_search(
    features: np.ndarray,
    target: np.ndarray,
    allowed: np.ndarray,
    theta: np.ndarray,
    step: np.ndarray,
    value: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The step, halved until it brings the fit nearer; where it never does, none."""
    best, found = theta.copy(), value.copy()
    size, todo = 1.0, np.arange(len(theta))
    for _ in range(_HALVINGS):
        tried = theta[todo] + size * step[todo]
        own = _distances(features[todo], target, allowed, tried)
        better = own < value[todo]
        best[todo[better]], found[todo[better]] = tried[better], own[better]
        todo, size = todo[~better], size / 2
        if not len(todo):
            break
    return best, found


def _distances(
    features: np.ndarray,
    target: np.ndarray,
    allowed: np.ndarray,
    theta: np.ndarray,
) -> np.ndarray:
    """Mean KL(target || fitted) of every set."""
    n = features.shape[-1]
    scores = (features @ theta[:, None, :n, None])[..., 0] + theta[:, None, n:]
    top = np.where(allowed, scores, -np.inf).max(-1)
    total = top + np.log(np.where(allowed, np.exp(np.minimum(scores - top[..., None], 0.0)), 0.0).sum(-1))
    entropy = np.where(target > 0, target * np.log(np.where(target > 0, target, 1.0)), 0.0).sum(-1)
    given = (target * np.where(allowed, scores, 0.0)).sum(-1)
    return np.asarray((entropy + target.sum(-1) * total - given).mean(-1))


def _derivatives(
    features: np.ndarray,
    target: np.ndarray,
    allowed: np.ndarray,
    theta: np.ndarray,
    with_bias: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and curvature: of a log-linear family the mean missed, and the covariance, of features and one-hots."""
    n, size = features.shape[-1], theta.shape[1]
    p = _softmax((features @ theta[:, None, :n, None])[..., 0] + theta[:, None, n:], allowed)
    missed = p - target
    mean = np.einsum("sbl,sblk->sbk", p, features)
    slope, curvature = np.zeros(theta.shape), np.zeros((len(theta), size, size))
    slope[:, :n] = np.einsum("sbl,sblk->sk", missed, features)
    weighed = p[..., None] * (features - mean[:, :, None])
    curvature[:, :n, :n] = np.einsum("sblj,sblk->sjk", weighed, features)
    if with_bias:
        slope[:, n:] = missed.sum(1)
        curvature[:, n:, :n] = weighed.sum(1)
        curvature[:, :n, n:] = curvature[:, n:, :n].swapaxes(1, 2)
        one_hot = np.eye(p.shape[-1])
        curvature[:, n:, n:] = one_hot * p.sum(1)[:, None] - p.swapaxes(1, 2) @ p
    return slope / len(target), curvature / len(target)


def _softmax(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    kept = np.where(allowed, scores, -np.inf)
    found = np.exp(kept - kept.max(-1, keepdims=True))
    return np.asarray(found / found.sum(-1, keepdims=True))
