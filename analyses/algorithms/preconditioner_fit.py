"""The preconditioners with which gradient descent comes nearest to given predictions, one matrix a step.

w <- w + A_l (b - S w) with b = X^T y / n and S = X^T X / n. The prediction x_q^T w_k is linear in each A_l: its
derivative is the product u_l g_l^T of the step's gradient g_l = b - S w_(l-1) and of u_l, the query carried back
through the later steps, u_k = x_q and u_l = (I - S A_(l+1)^T) u_(l+1). With this the fit is Gauss and Newton's (trust
region), from A_l = rate I. It has k d^2 free numbers and needs contexts to match.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares


def fit_preconditioners(
    x: Float[np.ndarray, "batch demo dim"],
    y: Float[np.ndarray, "batch demo"],
    query: Float[np.ndarray, "batch dim"],
    goal: Float[np.ndarray, " batch"],
    start: Float[np.ndarray, "_ dim dim"],
    *,
    max_rounds: int = 40,
) -> Float[np.ndarray, "_ dim dim"]:
    """The matrices, one a step, whose squared distance to `goal` is (locally) the least."""
    n = x.shape[1]
    gram, moment = np.swapaxes(x, 1, 2) @ x / n, (y[:, None] @ x)[:, 0] / n
    unit, size = float(np.abs(start).max()) or 1.0, float(np.sqrt((goal**2).mean())) or 1.0

    def run(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        matrices = flat.reshape(start.shape) * unit
        weights, gradients = np.zeros_like(moment), []
        for matrix in matrices:
            gradients.append(moment - (gram @ weights[..., None])[..., 0])
            weights = weights + gradients[-1] @ matrix.T
        carried, rows = query, []
        for matrix, gradient in zip(matrices[::-1], gradients[::-1], strict=True):
            rows.append((carried[:, :, None] * gradient[:, None, :]).reshape(len(query), -1))
            carried = carried - (gram @ (carried @ matrix)[..., None])[..., 0]
        return ((weights * query).sum(-1) - goal) / size, unit / size * np.concatenate(rows[::-1], axis=1)

    found = least_squares(
        lambda flat: run(flat)[0], start.ravel() / unit, jac=lambda flat: run(flat)[1],
        ftol=1e-10, xtol=1e-12, gtol=1e-15, max_nfev=max_rounds,
    )  # fmt: skip
    return np.asarray(found.x.reshape(start.shape) * unit)


def choose_preconditioners(
    x: Float[np.ndarray, "batch demo dim"],
    y: Float[np.ndarray, "batch demo"],
    query: Float[np.ndarray, "batch dim"],
    goal: Float[np.ndarray, " batch"],
    rates: dict[int, float],
) -> Float[np.ndarray, "_ dim dim"] | None:
    """The matrices, with as many steps as predict the last quarter of the contexts best from the others.

    `rates`: for each number of steps to try the rate to start from. Numbers of steps with more than half as many free
    numbers as there are contexts to fit are left out; None where that leaves none.
    """
    dim, cut = x.shape[-1], len(x) * 3 // 4
    own, rest = (x[:cut], y[:cut], query[:cut], goal[:cut]), (x[cut:], y[cut:], query[cut:], goal[cut:])
    best: tuple[float, np.ndarray] | None = None
    for steps in sorted(rates):
        if steps * dim**2 > cut / 2:
            break
        start = np.broadcast_to(rates[steps] * np.eye(dim), (steps, dim, dim)).copy()
        matrices = fit_preconditioners(*own, start)
        error = float(((_predict(matrices, *rest[:3]) - rest[3]) ** 2).mean())
        if best is None or error < best[0] - 1e-12 * float((goal**2).mean()):
            best = error, matrices
    return None if best is None else fit_preconditioners(x, y, query, goal, best[1])


def _predict(matrices: np.ndarray, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
    weights = np.zeros_like(query)
    for matrix in matrices:
        residual = y - (x @ weights[..., None])[..., 0]
        weights = weights + (residual[:, None] @ x)[:, 0] / x.shape[1] @ matrix.T
    return np.asarray((weights * query).sum(-1))
