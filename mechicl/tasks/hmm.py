"""Mixtures of hidden Markov models, merged into one: the text on which in-context learning has a theory.

Every task is a hidden Markov model (HMM) with states, transitions, emissions and a start state of its own. Text is a
chain of sequences with a delimiter between them; the sequences of a task begin in its start state. Merged into one HMM
the transitions are block-diagonal, a block a task, and everything here is computed block by block:

    P_theta(o_1 ... o_t) = e_start^T D(o_1) T D(o_2) T ... D(o_t) T 1,    D(o) = diag(P(o | state))

Source: 2305.12766, section 4; 2111.02080 for the setting.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_CELLS = 2_000_000  # numbers held at once for a batch of sequences: 16 MB


@dataclass(frozen=True, eq=False)
class HMMMixture:
    """Tasks, each an HMM over the same observations 0 ... m - 1; the delimiter is the number m.

    transitions: P(next state | state), a block a task. emissions: P(observation | state). start: the state in which a
    task's sequences begin. prior: how often a task occurs in pre-training text. switch: the probability, in that text,
    that the task after a delimiter is drawn anew; 0 says that a text has one task.

    Errors (ValueError): shapes that do not go together, rows that are no probabilities, states that do not exist.
    """

    transitions: Float[np.ndarray, "task state state"]
    emissions: Float[np.ndarray, "task state vocab"]
    start: Int[np.ndarray, "task"]
    prior: Float[np.ndarray, "task"]
    switch: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        check_mixture_shapes(self.transitions.shape, self.emissions.shape, self.start.shape, self.prior.shape)
        for name in ("transitions", "emissions", "prior"):
            rows = getattr(self, name)
            if not (np.isfinite(rows).all() and (rows >= 0).all() and np.allclose(rows.sum(-1), 1, atol=1e-8)):
                raise ValueError(f"got {name} with a row that is no probability; expected numbers >= 0 that sum to 1")
        if ((self.start < 0) | (self.start >= self.n_states)).any():
            raise ValueError(f"got start states {self.start.tolist()}; expected numbers from 0 to {self.n_states - 1}")
        if not 0 <= self.switch <= 1:
            raise ValueError(f"got switch={self.switch}; expected a probability")

    @property
    def n_tasks(self) -> int:
        """The number of tasks."""
        return self.transitions.shape[0]

    @property
    def n_states(self) -> int:
        """The number of states of one task."""
        return self.transitions.shape[1]

    @property
    def n_observations(self) -> int:
        """The number m of observations, the delimiter not among them; also the delimiter's own number."""
        return self.emissions.shape[2]

    def checksum(self) -> str:
        """SHA-256 of all numbers: results say by it on which mixture they were computed."""
        found = hashlib.sha256(repr((self.transitions.shape, self.emissions.shape, float(self.switch))).encode())
        for part in (self.transitions, self.emissions, self.start.astype(np.int64), self.prior):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def forward(
        self, x: Int[np.ndarray, "*batch pos"]
    ) -> tuple[Float[np.ndarray, "*batch task"], Float[np.ndarray, "*batch task state"]]:
        """Log-likelihood (nats) of sequences under each task, and the distribution of the state after them.

        The forward algorithm, scaled at every position, so that sequences of any length are safe. A sequence that a
        task cannot make has log-likelihood -inf there, and a state distribution of 0. Empty sequences are allowed.
        Raises ValueError for numbers that are no observations.
        """
        check_observations(x, self.n_observations)
        flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        logs = np.empty((len(flat), self.n_tasks))
        states = np.empty((len(flat), self.n_tasks, self.n_states))
        for rows in chunks(len(flat), self.n_tasks * self.n_states):
            logs[rows], states[rows] = self._forward(flat[rows])
        return logs.reshape(*x.shape[:-1], self.n_tasks), states.reshape(*x.shape[:-1], self.n_tasks, self.n_states)

    def _forward(
        self, x: Int[np.ndarray, "item pos"]
    ) -> tuple[Float[np.ndarray, "item task"], Float[np.ndarray, "item task state"]]:
        by_observation = np.moveaxis(self.emissions, 2, 1)  # [task, vocab, state]
        belief = np.zeros((self.n_tasks, len(x), self.n_states))
        belief[np.arange(self.n_tasks), :, self.start] = 1
        log = np.zeros((self.n_tasks, len(x)))
        for position in range(x.shape[1]):
            belief = belief * by_observation[:, x[:, position]]
            total = belief.sum(-1)
            with np.errstate(divide="ignore"):
                log += np.log(total)
            belief = np.divide(belief, total[..., None], out=np.zeros_like(belief), where=total[..., None] > 0)
            belief = belief @ self.transitions
        return log.T, np.moveaxis(belief, 0, 1)

    def next_probs(self, x: Int[np.ndarray, "*batch pos"]) -> Float[np.ndarray, "*batch task vocab"]:
        """P_theta(y | x), the next observation under each task; 0 throughout where a task cannot make x."""
        _, states = self.forward(x)
        return np.asarray((states[..., None, :] @ self.emissions)[..., 0, :])

    def merged(
        self, *, stop: float = 0.25
    ) -> tuple[
        Float[np.ndarray, "_"],
        Float[np.ndarray, "_ _"],
        Float[np.ndarray, "_ _"],
    ]:
        """The one HMM: initial distribution, transitions (S x S) and emissions (S x m + 1), delimiter last.

        S = tasks x (states + 1): block after block, then a delimiter state a task. Sequences end with probability
        `stop` after every observation. Given where the delimiters stand, this probability cancels: predictions of the
        next observation are those of the blocks. For small mixtures and for reading; nothing else here builds it.
        """
        if not 0 < stop < 1:
            raise ValueError(f"got stop={stop}; expected a probability between 0 and 1")
        n, k, m = self.n_tasks, self.n_states, self.n_observations
        begin = np.zeros((n, n * (k + 1)))  # where the sequences of a task begin
        begin[np.arange(n), np.arange(n) * k + self.start] = 1
        transitions, emissions = np.zeros((n * (k + 1), n * (k + 1))), np.zeros((n * (k + 1), m + 1))
        for task in range(n):
            block = slice(task * k, (task + 1) * k)
            transitions[block, block] = (1 - stop) * self.transitions[task]
            transitions[block, n * k + task] = stop
            emissions[block, :m] = self.emissions[task]
        after = (1 - self.switch) * np.eye(n) + self.switch * self.prior  # the task after a delimiter
        transitions[n * k :] = after @ begin
        emissions[n * k :, m] = 1
        return self.prior @ begin, transitions, emissions


def random_mixture(
    n_tasks: int,
    n_states: int,
    n_observations: int,
    *,
    transition_concentration: float = 0.2,
    emission_concentration: float = 0.2,
    switch: float = 0.0,
    seed: int,
) -> HMMMixture:
    """Tasks with random rows: a pure function of the seed. All tasks are equally frequent.

    Rows are drawn from symmetric Dirichlet distributions; below 1 most of a row lies on a few entries, far above 1 all
    rows are alike, and tasks can hardly be told apart. Transitions, emissions and start states have generators of their
    own. Raises ValueError for sizes below 1, fewer than 2 observations, and concentrations that are not above 0.
    """
    for name, value, least in (
        ("n_tasks", n_tasks, 1),
        ("n_states", n_states, 1),
        ("n_observations", n_observations, 2),
    ):
        if value < least:
            raise ValueError(f"got {name}={value}; expected {least} or more")
    for name, one in (("transition", transition_concentration), ("emission", emission_concentration)):
        if not 0 < one < np.inf:
            raise ValueError(f"got {name}_concentration={one}; expected a finite number above 0")
    for_transitions, for_emissions, for_start = np.random.default_rng(seed).spawn(3)
    return HMMMixture(
        for_transitions.dirichlet(np.full(n_states, transition_concentration), size=(n_tasks, n_states)),
        for_emissions.dirichlet(np.full(n_observations, emission_concentration), size=(n_tasks, n_states)),
        for_start.integers(n_states, size=n_tasks),
        np.full(n_tasks, 1 / n_tasks),
        switch,
    )


def chunks(total: int, width: int) -> Iterator[slice]:
    """Slices of `total` sequences with `width` numbers each that fit into little memory."""
    size = max(1, _CELLS // max(1, width))
    yield from (slice(first, min(first + size, total)) for first in range(0, total, size))


def check_observations(x: np.ndarray, n_observations: int) -> None:
    """Raise a ValueError where a number is no observation."""
    if x.size and (x.min() < 0 or x.max() >= n_observations):
        raise ValueError(
            f"got observations from {x.min()} to {x.max()}; expected 0 to {n_observations - 1} (the delimiter, "
            f"{n_observations}, stands between sequences, not in them)"
        )


def check_mixture_shapes(
    transitions: tuple[int, ...], emissions: tuple[int, ...], start: tuple[int, ...], prior: tuple[int, ...]
) -> None:
    """Raise a ValueError unless the shapes are [task, state, state], [task, state, vocab], [task] and [task]."""
    if len(transitions) != 3 or transitions[1] != transitions[2] or 0 in transitions:
        raise ValueError(f"got transitions of shape {transitions}; expected [task, state, state], all 1 or more")
    n_tasks, n_states, _ = transitions
    if len(emissions) != 3 or emissions[:2] != (n_tasks, n_states) or emissions[2] < 2:
        raise ValueError(f"got emissions of shape {emissions}; expected ({n_tasks}, {n_states}, 2 or more)")
    for name, shape in (("start", start), ("prior", prior)):
        if shape != (n_tasks,):
            raise ValueError(f"got {name} of shape {shape}; expected {(n_tasks,)}: one number a task")
