"""The free numbers of an account that bring it nearest to a model.

Every combination of its choices is tried on a grid of its free numbers; from the best few a simplex search goes on
(Nelder and Mead, inside the ranges). The objective is the mean distance over all contexts, of whatever length, so one
set of numbers must serve all lengths. Numbers at which an account cannot predict (a descent that diverges) count as
infinitely far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.distances import account_distances

N_REFINED = 8  # combinations of choices from which the search goes on
ROUNDING = 1e-6  # of the farthest combination's distance: choices that differ by less differ by rounding
EVALUATIONS = 80  # of the search, for each free number
_Found = tuple[float, dict[str, Any], Float[np.ndarray, " _"]]  # distance, choices, place within the ranges


def fit_account(account: Account, contexts: Sequence[Contexts]) -> dict[str, Any]:
    """The parameters of the account with the least mean distance to the model's predictions on these contexts.

    Raises ValueError where it can predict with none of the values that were tried, and says why.
    """
    if account.fit is not None:
        return account.fit(contexts)
    search = _Search(account, contexts)
    combinations = [dict(zip(account.choices, values, strict=True)) for values in product(*account.choices.values())]
    tried = [found for found in map(search.on_grid, combinations) if np.isfinite(found[0])]
    if not tried:
        raise ValueError(f"the account {account.name!r} can predict with none of the numbers tried: {search.refusal}")
    limit = ROUNDING * max(found[0] for found in tried)
    near = sorted(tried, key=lambda found: found[0])[:N_REFINED]
    if account.free:
        near = [search.refined(found) for found in near]
    least = min(found[0] for found in near)
    equal = [found for found in near if found[0] <= least + limit]
    _, chosen, at = min(equal, key=lambda found: combinations.index(found[1]))  # the first: fewer steps
    return chosen | search.values(at)


@dataclass
class _Search:
    """The objective over the unit cube of an account's free numbers; keeps what it said where it refused."""

    account: Account
    contexts: Sequence[Contexts]
    refusal: str = field(default="", init=False)

    def values(self, at: Float[np.ndarray, " _"]) -> dict[str, float]:
        """The free numbers at a place in the unit cube."""
        return {one.name: one.at(float(share)) for one, share in zip(self.account.free, at, strict=True)}

    def distance(self, chosen: dict[str, Any], at: Float[np.ndarray, " _"]) -> float:
        """The mean distance over all contexts; infinite where the account refuses to predict."""
        parameters = chosen | self.values(at)
        try:
            with np.errstate(all="ignore"):
                apart = [account_distances(self.account, one, parameters) for one in self.contexts]
        except ValueError as refused:
            self.refusal = str(refused)
            return np.inf
        mean = float(np.concatenate(apart).mean())
        return mean if np.isfinite(mean) else np.inf

    def on_grid(self, chosen: dict[str, Any]) -> _Found:
        """The best place of the grid."""
        places = [np.array(at, dtype=float) for at in product(*(_grid(one.n_grid) for one in self.account.free))]
        distances = [self.distance(chosen, at) for at in places]
        best = int(np.argmin(distances))
        return distances[best], chosen, places[best]

    def refined(self, found: _Found) -> _Found:
        """The simplex search from a place; the place itself where nothing nearer is found."""
        distance, chosen, at = found
        if not np.isfinite(distance):
            return found
        sides = np.diag([(0.5 if at[i] <= 0.5 else -0.5) / (one.n_grid - 1) for i, one in enumerate(self.account.free)])
        result: Any = minimize(
            lambda place: min(self.distance(chosen, folded(place)), 1e300),  # the search does not take infinity
            at,
            method="Nelder-Mead",  # without bounds: a simplex that begins at one would be clipped to a point there
            options={
                "initial_simplex": np.vstack([at, at + sides]),
                "xatol": 1e-6,
                "fatol": 1e-14,
                "maxfev": EVALUATIONS * len(at),
            },
        )
        return (float(result.fun), chosen, folded(result.x)) if result.fun < distance else found


def folded(place: Float[np.ndarray, " _"]) -> Float[np.ndarray, " _"]:
    """A place inside the ranges: what lies beyond an end is mirrored there."""
    return np.asarray(1 - np.abs(1 - np.abs(place) % 2))


def _grid(n: int) -> list[float]:
    return [float(share) for share in np.linspace(0, 1, n)]
