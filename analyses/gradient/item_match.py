"""Do priming in context and a real gradient step on the same prime agree, item by item?

If in-context learning is an implicit gradient step, then a prime that moves a target much when it stands in the context
should move the same target much when the weights are stepped on it. For a prime of form s (sign +1 for the first form,
-1 for the second), the effects of an item are

    context:  sign (L_s - L_base | prime in the context)        gradient:  sign (L_s - L_base | weights stepped on it)

in nats, with base the neutral prime, learned in the same way (or no prime). Their correlation r, within a form, at four
levels, each of which leaves less to chance agreement:

    "items"                   all items as they are
    "within targets"          each target's mean taken out: not only that some targets move easily
    "beyond verb and target"  verb and target means taken out (additive, least squares): what is particular to the pair
    "between verbs"           the verbs' means, adjusted for the targets that they met: the level of the IFE

Range -1 to 1. Chance is not always 0: at the level of items, what all primes do to a target counts as agreement. So
beside each r stands `chance`, its mean when the gradient's effects are those of another verb's primes on the same
target (verbs permuted), with the two-sided p of that permutation and an interval of r that resamples verbs. A high r
of an effect that hardly varies (`context_sd`, `gradient_sd`, nats) is about
next to nothing. Slopes on bias of the same sign in both (arXiv 2406.18501) say less than this correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components

from mechicl.analyses.finetuning import FinetunedPriming
from mechicl.analyses.priming import PrimingResult
from mechicl.provenance import Provenance
from mechicl.resampling import cluster_bootstrap
from mechicl.results import Result
from mechicl.stats import holm

LEVELS = ("items", "within targets", "beyond verb and target", "between verbs")
Cells = Float[np.ndarray, "verb target"]


@dataclass(frozen=True)
class ItemMatch(Result):
    """Agreement of in-context and gradient effects.

    matches: one row a form and level: form, level, r with its interval (low, high), chance (mean r of permuted verbs),
        difference (r - chance), p (permutation), p_holm over all rows, context_sd and gradient_sd (nats, standard
        deviations of what is correlated), n_items, n_verbs.
    items: one row an item and form: prime, target, prime_verb, form, context_effect, gradient_effect (nats).
    """

    matches: pd.DataFrame
    items: pd.DataFrame
    baseline: str
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The matches."""
        return self.matches.copy()

    def plot(self, ax: Any = None) -> Any:
        """Context effect against gradient effect of every item; returns matplotlib Axes."""
        from mechicl.views.steps import plot_item_match

        return plot_item_match(self, ax=ax)


def match_items(
    context: PrimingResult,
    gradient: FinetunedPriming,
    *,
    baseline: str | None = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> ItemMatch:
    """Correlate both results' effects over the items that they share.

    `baseline`: "neutral" or "unprimed"; by default neutral primes where both results have them. `seed` is that of
    bootstrap and permutations.

    Raises `ValueError` where the results are of other corpora or models, where a baseline is missing, where fewer than
    4 verbs prime (no permutation of them can be unlikely), and where one of the two effects does not vary.
    """
    shared = _shared_items(context, gradient)
    if baseline is None:
        both = shared[["L_neutral_context", "L_neutral_gradient"]].notna().all(axis=None)
        baseline = "neutral" if both else "unprimed"
    if baseline not in ("neutral", "unprimed") or shared[f"L_{baseline}_context"].isna().any():
        raise ValueError(
            f"got baseline={baseline!r}; expected 'unprimed', or 'neutral' where all items have such primes"
        )
    n_verbs = int(shared["prime_verb"].nunique())
    check_verbs(n_verbs)
    met = pd.crosstab(shared["prime_verb"], shared["target"]).to_numpy()
    if connected_components(met @ met.T, directed=False, return_labels=False) > 1:
        raise ValueError(
            "some verbs share no targets with the others, not even by way of third verbs, so their means cannot be "
            "compared; use a corpus in which targets meet primes of several verbs"
        )
    parts = []
    for form, sign in zip(context.forms, (1, -1), strict=True):
        own = shared[["prime", "target", "prime_verb"]].assign(form=form)
        for kind in ("context", "gradient"):
            own[f"{kind}_effect"] = sign * (shared[f"L_{form}_{kind}"] - shared[f"L_{baseline}_{kind}"])
            if not own[f"{kind}_effect"].std() > 0:
                raise ValueError(f"the {kind} effects of {form} primes do not vary; a correlation is undefined")
        parts.append(own)
    rows = []
    for own in parts:
        effects = [_cells(own, f"{kind}_effect") for kind in ("context", "gradient")]
        for name in LEVELS:
            rows.append({"form": own["form"].iloc[0], "level": name, **_match(effects, name, n_boot, level, seed)})
    matches = pd.DataFrame(rows)
    known = matches["p"].notna()
    matches.insert(list(matches.columns).index("p") + 1, "p_holm", np.nan)
    matches.loc[known, "p_holm"] = holm(matches.loc[known, "p"].to_numpy())
    return ItemMatch(
        matches=matches,
        items=pd.concat(parts, ignore_index=True),
        baseline=baseline,
        level=level,
        provenance=gradient.provenance,
    )


def check_verbs(n_verbs: int) -> None:
    """Raises `ValueError` where no permutation of the prime verbs can be unlikely."""
    if n_verbs < 4:
        raise ValueError(f"{n_verbs} verbs prime; at least 4 are needed to tell agreement from that of any other verb")


def _shared_items(context: PrimingResult, gradient: FinetunedPriming) -> pd.DataFrame:
    keys = ["prime", "target", "prime_verb"]
    mine, other = context.items, gradient.priming.items
    if context.forms != gradient.priming.forms or not mine[keys].equals(other[keys]):
        raise ValueError("the two results are of different corpora; measure and fine-tune on the same one")
    if context.provenance.weights_sha256 != gradient.provenance.weights_sha256:
        raise ValueError("the two results are of different models; measure and fine-tune the same one")
    columns = [f"L_{name}" for name in (*context.forms, "neutral", "unprimed")]
    both = [frame[columns].add_suffix(f"_{kind}") for kind, frame in (("context", mine), ("gradient", other))]
    return pd.concat([mine[keys], *both], axis=1)


def _cells(own: pd.DataFrame, column: str) -> Cells:
    """Mean effect of every verb's primes on every target; NaN where they never met."""
    return own.pivot_table(index="prime_verb", columns="target", values=column, aggfunc="mean").to_numpy()


def _match(effects: list[Cells], name: str, n_boot: int, level: float, seed: int) -> dict[str, Any]:
    """r of one level with interval, chance and p."""
    n_verbs = len(effects[0])
    first, second = _leveled(effects[0], name), _leveled(effects[1], name)
    known = np.isfinite(first + second)
    facts = {
        "context_sd": float(first[known].std()), "gradient_sd": float(second[known].std()),
        "n_items": int(known.sum()), "n_verbs": n_verbs,
    }  # fmt: skip
    spreads = zip((first, second), effects, strict=True)
    if any(part[known].std() <= 1e-10 * np.nanstd(whole) for part, whole in spreads):  # rounding errors, no effects
        return dict.fromkeys(("r", "low", "high", "chance", "difference", "p"), np.nan) | facts
    pairs = _pair_sums(first, second)
    each = np.arange(n_verbs)
    own = pairs[each, each]
    found = cluster_bootstrap(
        lambda sample: _correlation(own[sample]), n_verbs, n_boot=n_boot, level=level, method="percentile", seed=seed
    )
    generator = np.random.default_rng(seed)
    # Taking out means commutes with permuting verbs, so the rows of what is left are permuted.
    orders = np.stack([generator.permutation(n_verbs) for _ in range(n_boot)])
    permuted = _correlation(pairs[each, orders])
    permuted = permuted[np.isfinite(permuted)]
    chance = float(permuted.mean())
    beyond = np.abs(permuted - chance) >= abs(found.estimate - chance) - 1e-12
    return {
        "r": found.estimate, "low": found.low, "high": found.high, "chance": chance,
        "difference": found.estimate - chance, "p": (1 + beyond.sum()) / (1 + len(permuted)), **facts,
    }  # fmt: skip


def _leveled(effects: Cells, name: str) -> Float[np.ndarray, "verb _"]:
    """The effects with verb or target means taken out, as the level says."""
    if name == "items":
        return effects
    if name == "within targets":
        known = np.isfinite(effects)
        return effects - np.where(known, effects, 0.0).sum(0) / known.sum(0)
    verbs, targets = _additive(effects)
    return verbs[:, None] if name == "between verbs" else effects - verbs[:, None] - targets[None]


def _additive(effects: Cells) -> tuple[Float[np.ndarray, " verb"], Float[np.ndarray, " target"]]:
    """Least squares for effect = verb + target over the cells that are known, by sweeping out means in turn."""
    known = np.isfinite(effects)
    left = np.where(known, effects, 0.0)
    verbs, targets = np.zeros(left.shape[0]), np.zeros(left.shape[1])
    for _ in range(500):
        by_verb = (left * known).sum(1) / known.sum(1)
        left = left - by_verb[:, None]
        by_target = (left * known).sum(0) / known.sum(0)
        left = left - by_target[None]
        verbs, targets = verbs + by_verb, targets + by_target
        if max(np.abs(by_verb).max(), np.abs(by_target).max()) < 1e-12 * max(1.0, np.abs(effects[known]).max()):
            break
    return verbs, targets


def _pair_sums(
    first: Float[np.ndarray, "verb _"], second: Float[np.ndarray, "verb _"]
) -> Float[np.ndarray, "verb verb 6"]:
    """For the first's row of one verb and the second's of another, what a correlation over the cells that both have
    needs: n, x, y, xx, yy, xy.
    """
    one, other = (np.isfinite(values).astype(float) for values in (first, second))
    # centred once, so that sums of squares lose nothing to a large common mean
    x, y = (np.where(np.isfinite(v), v - np.nanmean(v), 0.0) for v in (first, second))
    return np.stack([one @ other.T, x @ other.T, one @ y.T, x * x @ other.T, one @ (y * y).T, x @ y.T], -1)


def _correlation(sums: Float[np.ndarray, "*boot verb 6"]) -> Float[np.ndarray, "*boot"]:
    """Pearson's r over the cells of each sample of verbs; NaN where they do not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums.sum(-2), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n)))
