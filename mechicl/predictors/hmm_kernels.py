"""The kernel of the theorem: in-context learning on a mixture of HMMs as kernel regression.

    T_x = prod_t D(x_t) T      (block-diagonal, a block a task; see `mechicl.tasks.hmm`)
    K(x, x') = f(x)^T Sigma^+ f(x'),    Sigma = E_pre[f f^T]

P_theta(x, y) is linear in vec(T_x), whatever the task, and that is why one kernel serves all of them. Two features f:

    "ratio"     f(x) = vec(T_x) / P_pre(x)    sum_i e(y_i) K(x_test, x_i) / sum_i K(x_test, x_i) -> P_theta(y | x_test)
    "literal"   f(x) = vec(T_x)               as the theorem is written: not consistent unless P_pre is uniform

and two ways to use the weights, `signed_average`: divided by their sum, or by n ("1/n form"), which leaves a bias of
scale. K may be negative. Only the blocks are ever formed. `rows="start"` keeps, of every block, the row of the task's
start state: all that P_theta(x, y) needs, so that the ratio stays consistent, with tasks x states features in place of
tasks x states^2, and somewhat less variance. Sigma is rank deficient: once features are brought to one scale,
eigenvalues below `tolerance` of the largest are dropped.

Source: 2305.12766, theorem 1; the features "ratio" and the start rows are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from mechicl.tasks.hmm import HMMMixture, check_observations, chunks
from mechicl.tasks.hmm_prompts import sample_sequences

FEATURES = ("ratio", "literal")
ROWS = ("all", "start")
MOST_FEATURES = 4_096  # Sigma then takes 128 MB, and its eigenvectors a minute
MOST_INPUTS = 50_000  # that are enumerated when nothing else is said
DRAWN_INPUTS = 20_000  # and drawn where there are more


@dataclass(frozen=True, eq=False)
class TheoremKernel:
    """K for inputs of one length: `embed(x) . embed(x')`. Made by `theorem_kernel`.

    whitening: Sigma^+ to the power 1/2, by its kept eigenvectors. n_inputs: those that Sigma was averaged over.
    """

    mixture: HMMMixture
    length: int
    features: str
    rows: str
    whitening: Float[np.ndarray, "dim rank"]
    n_inputs: int

    @property
    def rank(self) -> int:
        """The number of directions that are kept of Sigma."""
        return self.whitening.shape[1]

    def embed(self, x: Int[np.ndarray, "*batch pos"]) -> Float[np.ndarray, "*batch rank"]:
        """Whitened features, whose products are the kernel. Raises ValueError for another length of x."""
        if x.shape[-1] != self.length:
            raise ValueError(f"got inputs of length {x.shape[-1]}; this kernel is for length {self.length}")
        flat = x.reshape(-1, self.length)
        found = np.empty((len(flat), self.rank))
        for part in chunks(len(flat), self.whitening.shape[0]):
            found[part] = (
                input_features(self.mixture, flat[part], features=self.features, rows=self.rows) @ self.whitening
            )
        return found.reshape(*x.shape[:-1], self.rank)

    def __call__(
        self, query: Int[np.ndarray, "*batch pos"], x: Int[np.ndarray, "*batch demo pos"]
    ) -> Float[np.ndarray, "*batch demo"]:
        """K(query, x_i) of every demonstration; may be negative."""
        demos, queries = x.reshape(-1, *x.shape[-2:]), self.embed(query.reshape(-1, query.shape[-1]))
        weights = np.empty(demos.shape[:2])
        m = self.mixture.n_observations
        few = m**self.length <= MOST_INPUTS and m**self.length <= demos.size  # embed every distinct input once
        if few:
            codes = np.ravel_multi_index(tuple(np.moveaxis(demos, -1, 0)), (m,) * self.length)
            distinct, place = np.unique(codes, return_inverse=True)
            table = self.embed(np.stack(np.unravel_index(distinct, (m,) * self.length), axis=-1))
            place = place.reshape(codes.shape)
        for item, embedded in enumerate(queries):
            weights[item] = (table @ embedded)[place[item]] if few else self.embed(demos[item]) @ embedded
        return weights.reshape(x.shape[:-1])


def theorem_kernel(
    mixture: HMMMixture,
    length: int,
    *,
    features: str = "ratio",
    rows: str = "all",
    n_inputs: int | None = None,
    tolerance: float = 1e-10,
    seed: int = 0,
) -> TheoremKernel:
    """Build the kernel: Sigma over all m^length inputs, weighted by P_pre, or over inputs drawn from P_pre.

    n_inputs: how many to draw; None takes all where they are at most 50,000, and draws 20,000 (with `seed`) otherwise.
    Draws give an estimate of Sigma; they should outnumber the features many times. Raises ValueError for unknown
    features or rows, sizes out of range, and features too many for Sigma.
    """
    if features not in FEATURES or rows not in ROWS:
        raise ValueError(f"got features={features!r}, rows={rows!r}; expected one of {FEATURES} and one of {ROWS}")
    if length < 1 or (n_inputs is not None and n_inputs < 1):
        raise ValueError(f"got length={length}, n_inputs={n_inputs}; expected 1 or more")
    if not 0 < tolerance < 1:
        raise ValueError(f"got tolerance={tolerance}; expected a share of the largest eigenvalue, such as 1e-10")
    dim = mixture.n_tasks * mixture.n_states * (mixture.n_states if rows == "all" else 1)
    if dim > MOST_FEATURES:
        raise ValueError(
            f"{mixture.n_tasks} tasks of {mixture.n_states} states make {dim} features, more than {MOST_FEATURES}; "
            + ("take rows='start', which needs one row a state block" if rows == "all" else "take a smaller mixture")
        )
    enumerated = n_inputs is None and mixture.n_observations**length <= MOST_INPUTS
    inputs = all_inputs(mixture, length) if enumerated else _drawn(mixture, length, n_inputs or DRAWN_INPUTS, seed)
    second = np.zeros((dim, dim))
    for part in chunks(len(inputs), dim * (mixture.n_states if rows == "all" else 1)):
        log_pre = log_pretraining(mixture, inputs[part])
        possible = np.isfinite(log_pre)
        weight = np.exp(log_pre[possible]) if enumerated else np.full(int(possible.sum()), 1 / len(inputs))
        found = input_features(mixture, inputs[part][possible], features=features, rows=rows)
        second += (found * weight[:, None]).T @ found
    # Features differ by orders of magnitude. On one scale, small ones are not mistaken for rounding; the kernel is the
    # same, as the features of any possible x lie in the range of Sigma.
    size = np.sqrt(np.diag(second))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(second / size / size[:, None])
    kept = values > tolerance * values[-1]
    whitening = vectors[:, kept] / np.sqrt(values[kept]) / size[:, None]
    return TheoremKernel(mixture, length, features, rows, whitening, len(inputs))


def input_features(
    mixture: HMMMixture, x: Int[np.ndarray, "item pos"], *, features: str = "ratio", rows: str = "all"
) -> Float[np.ndarray, "item dim"]:
    """f(x): the entries of the blocks of T_x, task by task, divided by P_pre(x) for "ratio".

    Scaled on the way, so that long inputs neither vanish nor overflow in "ratio". An x that has P_pre(x) = 0 is
    refused there (ValueError).
    """
    check_observations(x, mixture.n_observations)
    n, k = mixture.n_tasks, mixture.n_states
    by_observation = np.moveaxis(mixture.emissions, 2, 1)
    first = np.eye(k)[None] if rows == "all" else np.eye(k)[mixture.start][:, None]  # [task | 1, row, state]
    block = np.broadcast_to(first[:, None], (n, len(x), *first.shape[1:]))
    log_scale = np.zeros(len(x))
    for position in range(x.shape[1]):
        block = (block * by_observation[:, x[:, position], None]) @ mixture.transitions[:, None]
        largest = block.max(axis=(0, 2, 3))
        largest = np.where(largest > 0, largest, 1.0)
        block = block / largest[:, None, None]
        log_scale += np.log(largest)
    if features == "ratio":
        log_pre = log_pretraining(mixture, x)
        if np.isneginf(log_pre).any():
            raise ValueError(
                f"{int(np.isneginf(log_pre).sum())} of {len(x)} inputs never occur in pre-training: P_pre(x) = 0; "
                "the feature T_x / P_pre(x) is undefined there"
            )
        log_scale = log_scale - log_pre
    return np.asarray(np.moveaxis(block, 0, 1).reshape(len(x), -1) * np.exp(log_scale)[:, None])


def log_pretraining(mixture: HMMMixture, x: Int[np.ndarray, "*batch pos"]) -> Float[np.ndarray, "*batch"]:
    """log P_pre(x) = log sum_theta P(theta) P_theta(x), in nats; -inf where no task can make x."""
    logs, _ = mixture.forward(x)
    with np.errstate(divide="ignore"):
        return np.asarray(logsumexp(logs, axis=-1, b=mixture.prior))


def signed_average(
    weights: Float[np.ndarray, "*batch demo"],
    y: Int[np.ndarray, "*batch demo"],
    n_labels: int,
    *,
    normalise: bool = True,
) -> Float[np.ndarray, "*batch vocab"]:
    """sum_i w_i e(y_i) / sum_i w_i, or / n with normalise=False, for weights that may be negative.

    Normalised predictions sum to 1; with weights of both signs they may leave [0, 1], and are wild where the sum of
    weights is near 0. Where all weights are 0 (no demonstration is like the query at all), or cancel up to rounding,
    they are the label frequencies. Raises ValueError for no demonstrations, labels out of range and weights that are
    not finite.
    """
    n = y.shape[-1]
    if n == 0 or weights.shape != y.shape:
        raise ValueError(
            f"got weights of shape {weights.shape} for labels of shape {y.shape}; expected one each, n >= 1"
        )
    check_observations(y, n_labels)
    if not np.isfinite(weights).all():
        raise ValueError("got weights that are not finite (NaN or infinite)")
    if normalise:
        total = weights.sum(-1, keepdims=True)
        known = np.abs(total) > np.finfo(float).eps * np.abs(weights).sum(-1, keepdims=True)
        weights = np.where(known, weights / np.where(known, total, 1.0), 1 / n)
    else:
        weights = weights / n
    rows = np.arange(max(1, y.size // n))[:, None] * n_labels
    flat = np.bincount((rows + y.reshape(-1, n)).ravel(), weights.ravel(), minlength=rows.size * n_labels)
    return flat.reshape(*y.shape[:-1], n_labels)


def all_inputs(mixture: HMMMixture, length: int) -> Int[np.ndarray, "item pos"]:
    """Every sequence of observations of this length, in order: x is row sum_t x_t m^(length - 1 - t)."""
    m = mixture.n_observations
    return np.stack(np.unravel_index(np.arange(m**length), (m,) * length), axis=-1)


def _drawn(mixture: HMMMixture, length: int, n_inputs: int, seed: int) -> Int[np.ndarray, "item pos"]:
    rng = np.random.default_rng(seed)
    tasks = rng.choice(mixture.n_tasks, size=n_inputs, p=mixture.prior)
    return sample_sequences(mixture, tasks, length, rng=rng)
