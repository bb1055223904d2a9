"""Sums of products from which regressions of many responses on many kernels follow, for a fold or for all prompts.

Four kinds of columns: r(esponses), one a head; k(ernels); s(alience), one a kernel; n(uisances), shared by all. Sums
add over folds, so the coefficients of all other folds, and the errors that they make on this one, need no pass over
rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_CONSTANT = 1e-10  # what is left of a column below this share of it is rounding


@dataclass(frozen=True)
class HeldOutErrors:
    """Squared errors on held-out prompts: of the nuisances; beside them, of a kernel's salience; of the kernel alone;
    of nuisances, salience and kernel together."""

    nuisance: Float[np.ndarray, " head"]
    without: Float[np.ndarray, "kernel head"]
    alone: Float[np.ndarray, "kernel head"]
    joint: Float[np.ndarray, "kernel head"]


@dataclass(frozen=True)
class Beyond:
    """What responses and kernels share beyond nuisances and salience: sums of squares and products."""

    rr: Float[np.ndarray, "kernel head"]
    kk: Float[np.ndarray, " kernel"]
    kr: Float[np.ndarray, "kernel head"]
    nuisance: Float[np.ndarray, " head"]


@dataclass(frozen=True)
class Grams:
    """Sums of products over rows, a row a demonstration of a prompt; all columns centred within prompts."""

    rr: Float[np.ndarray, " head"]
    kk: Float[np.ndarray, " kernel"]
    kr: Float[np.ndarray, "kernel head"]
    ss: Float[np.ndarray, " kernel"]
    sk: Float[np.ndarray, " kernel"]
    sr: Float[np.ndarray, "kernel head"]
    nn: Float[np.ndarray, "nuisance nuisance"]
    nr: Float[np.ndarray, "nuisance head"]
    nk: Float[np.ndarray, "nuisance kernel"]
    ns: Float[np.ndarray, "nuisance kernel"]

    @staticmethod
    def of(
        r: Float[np.ndarray, "row head"],
        k: Float[np.ndarray, "row kernel"],
        s: Float[np.ndarray, "row kernel"],
        n: Float[np.ndarray, "row nuisance"],
    ) -> Grams:
        """From the columns themselves."""
        square = lambda x: np.einsum("rc,rc->c", x, x)  # noqa: E731
        sk = np.einsum("rk,rk->k", s, k)
        return Grams(square(r), square(k), k.T @ r, square(s), sk, s.T @ r, n.T @ n, n.T @ r, n.T @ k, n.T @ s)

    def __add__(self, other: Grams) -> Grams:
        """Of the rows of both."""
        return Grams(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Grams) -> Grams:
        """Of the rows that are not in the other."""
        return Grams(*(a - b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.rr, self.kk, self.kr, self.ss, self.sk, self.sr, self.nn, self.nr, self.nk, self.ns

    def slopes(self) -> Float[np.ndarray, "kernel head"]:
        """On each kernel alone; 0 on one that does not vary."""
        return _ratio(self.kr, self.kk[:, None])

    def slopes_beyond(self) -> Float[np.ndarray, "kernel head"]:
        """On each kernel beside nuisances and its salience; 0 where these leave nothing of it."""
        beyond = self.beyond(self)
        left = np.where(beyond.kk > _CONSTANT * self.kk, beyond.kk, 0.0)
        return _ratio(beyond.kr, left[:, None])

    def beyond(self, train: Grams) -> Beyond:
        """What is left on these rows after nuisances and salience, with the coefficients of `train`."""
        inverse = np.linalg.pinv(train.nn, hermitian=True)  # nuisances may be collinear
        on_r, on_k, on_s = inverse @ train.nr, inverse @ train.nk, inverse @ train.ns
        rr, kk, ss = (self._own(*own) for own in ((self.rr, self.nr, on_r), (self.kk, self.nk, on_k),
                                                   (self.ss, self.ns, on_s)))  # fmt: skip
        kr, sr = self._across(self.kr, self.nk, on_k, on_r), self._across(self.sr, self.ns, on_s, on_r)
        sk = (self.sk - np.einsum("nk,nk->k", on_s, self.nk) - np.einsum("nk,nk->k", self.ns, on_k)
              + np.einsum("nk,nk->k", on_s, self.nn @ on_k))  # fmt: skip
        c_k, c_r = train._salience_coefficients(on_r, on_k, on_s)
        return Beyond(
            rr=rr - 2 * c_r * sr + c_r**2 * ss[:, None],
            kk=kk - 2 * c_k * sk + c_k**2 * ss,
            kr=kr - c_k[:, None] * sr - c_r * sk[:, None] + c_r * (c_k * ss)[:, None],
            nuisance=rr,
        )

    def held_out(self, train: Grams) -> HeldOutErrors:
        """The errors on these rows with the coefficients of `train`."""
        left, beyond, plain = self.beyond(train), train.slopes_beyond(), train.slopes()
        joint = left.rr - 2 * beyond * left.kr + beyond**2 * left.kk[:, None]
        alone = self.rr - 2 * plain * self.kr + plain**2 * self.kk[:, None]
        return HeldOutErrors(left.nuisance, left.rr, alone, joint)

    def _own(self, xx: np.ndarray, nx: np.ndarray, on_x: np.ndarray) -> np.ndarray:
        """Sum of squares of each column, less its part in the nuisances."""
        return xx - 2 * np.einsum("nx,nx->x", on_x, nx) + np.einsum("nx,nx->x", on_x, self.nn @ on_x)

    def _across(self, xr: np.ndarray, nx: np.ndarray, on_x: np.ndarray, on_r: np.ndarray) -> np.ndarray:
        """Products of other columns with the responses, less the parts of both in the nuisances."""
        return xr - on_x.T @ self.nr - nx.T @ on_r + on_x.T @ (self.nn @ on_r)

    def _salience_coefficients(
        self, on_r: np.ndarray, on_k: np.ndarray, on_s: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of kernels and responses on salience, all beyond the nuisances."""
        ss, sr = self._own(self.ss, self.ns, on_s), self._across(self.sr, self.ns, on_s, on_r)
        sk = self.sk - np.einsum("nk,nk->k", on_s, self.nk)  # the rest cancels: these are this sample's coefficients
        varies = np.where(ss > _CONSTANT * self.ss, ss, 0.0)
        return _ratio(sk, varies), _ratio(sr, varies[:, None])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
