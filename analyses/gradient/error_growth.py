"""Is in-context learning error-driven: does a prime that the model did not expect change it more?

An error-driven learner moves by what it got wrong. So over primes (a verb, a form, a sentence), with the error of a
prime -log P(form | verb) among the corpus' two forms (or 1 - P, which a delta rule is linear in), the slope b of

    outcome = b error + a term for form and target         (prime by prime, clustered by the prime's verb)

must be above 0 for the ICL effect s (L_prime - L_neutral), s = 1 for the first form and -1 for the second (nats: the
target's shift towards the prime's form), and for the sizes of the implicit update (see `update_sizes`). A boost of
fixed size has b = 0, and so has chance. Four regressions stand beside each other:

    raw                     the error alone
    with covariates         and the prime's length, what else surprises in it, its verb's frequency (see `error_rows`)
    after neutral primes    the placebo: the same slope where the prime showed neither form
    another verb's error    the mean slope if verbs swap their errors, and the range of 95% of such slopes

The IFE (`inverse_frequency_effect`) asks the same of verbs' biases; here the unit is the prime and its own sentence's
error, and the update's size is asked too. A slope above 0 is what error-driven learning predicts, not a proof of it:
activation and Bayesian accounts predict a larger effect of surprising primes as well (arXiv:2406.18501, discussion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.gradient.error_table import RAW, estimates_table, evidence_of, layer_table, verdict_of
from mechicl.analyses.gradient.prime_rows import COVARIATES, error_rows, with_covariates
from mechicl.analyses.gradient.update_sizes import UpdateSizes, crossed_rows, measure_update_sizes
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.verb_weights import tells_verbs_from_targets

MIN_VERBS = 3


@dataclass(frozen=True)
class ErrorDrivenResult(Result):
    """Slopes of the ICL effect and of update sizes on the prime's prediction error.

    rows: one row a pair and form: prime, target, verb, form, error (of the scale asked for), both errors, the outcomes
        (icl in nats; sizes as means over layers), their placebos, the covariates.
    primes: the same averaged over a prime's targets, with n_targets.
    estimates: one row an outcome, forms ("both" or one), model: estimate with low, high, se (verbs resampled, BCa), r
        (partial correlation), p (errors permuted over verbs), p_holm (over outcomes), relative (estimate / mean).
    by_layer: raw slopes of the sizes in every layer.
    evidence: outcome -> "grows", "shrinks", "none". verdict: in words. baseline: "neutral", or "unprimed" where the
        corpus has no neutral primes. by_target: whether every target has a term of its own.
    """

    forms: tuple[str, str]
    error: str
    baseline: str
    by_target: bool
    level: float
    rows: pd.DataFrame
    primes: pd.DataFrame
    estimates: pd.DataFrame
    by_layer: pd.DataFrame
    evidence: dict[str, str]
    verdict: str
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The estimates."""
        return self.estimates.copy()

    def slope(self, outcome: str = "icl", model: str = RAW, forms: str = "both") -> pd.Series:
        """One row of the estimates."""
        table = self.estimates
        found = table[(table["outcome"] == outcome) & (table["model"] == model) & (table["forms"] == forms)]
        if found.empty:
            raise ValueError(f"no slope of {outcome!r}, {model!r}, {forms!r}; outcomes are {', '.join(self.evidence)}")
        return found.iloc[0]

    def plot(self, ax: Any = None, outcome: str = "icl") -> Any:
        """An outcome over the error, a pale point a prime, a mark a verb and form; returns matplotlib Axes."""
        from mechicl.views.dual import plot_error_scatter

        row = self.slope(outcome)
        unit = "nats" if self.error == "surprisal" else "1 - P(form)"
        label = "Shift towards the prime's form (nats)" if outcome == "icl" else f"Size of the {outcome} update"
        return plot_error_scatter(
            self.primes, outcome, error_label=f"Prediction error of the prime ({unit})", outcome_label=label,
            slope=(row["estimate"], row["low"], row["high"]), ax=ax,
        )  # fmt: skip


def error_driven(
    model: Any,
    corpus: PrimingCorpus,
    *,
    error: str = "surprisal",
    primed: PrimingResult | None = None,
    sizes: UpdateSizes | None = None,
    n_pairs: int | None = None,
    prepend_bos: bool = True,
    n_boot: int = 2_000,
    n_permutations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> ErrorDrivenResult:
    """Test whether the ICL effect and the sizes of implicit updates grow with the prime's prediction error.

    primed: an already measured priming of the same corpus; nothing is scored twice. sizes: already measured update
    sizes, whose pairs are then used, and to which other kinds can have been added. n_pairs: how many pairs to use, as
    whole targets (see `crossed_rows`), for big models. seed: pairs, bootstrap and permutations.

        error_driven(load_organism("delta-medium"), speaker_corpus(seed=1), error="probability").verdict

    Where the corpus has no neutral primes the ICL effect is measured from the target without a prime; the result says
    so. Where shared targets do not link the verbs, targets have no term; this is said, too.

    Raises `ValueError`, before any forward pass, for fewer than 3 prime verbs, a priming or sizes of another corpus,
    and an unknown error scale; and for what `measure_priming` and `measure_update_sizes` refuse.
    """
    check_level(level)
    if error not in ("surprisal", "probability"):
        raise ValueError(f"got error={error!r}; expected 'surprisal' (nats) or 'probability' (1 - P(form))")
    wrapped, frame = wrap(model), corpus.to_frame()
    _check_corpus(frame, primed)
    chosen = _chosen_pairs(frame, sizes, n_pairs, seed)
    part = corpus if chosen.all() else corpus.where(chosen)
    options: dict[str, Any] = {"prepend_bos": prepend_bos, "memory_budget": memory_budget, "progress": progress}
    if primed is None:
        primed = measure_priming(wrapped, part, n_boot=100, level=level, **options)
        items = primed.items
    else:
        items = primed.items[chosen].reset_index(drop=True)
    if sizes is None:
        sizes = measure_update_sizes(wrapped, part, **options)
        items = items.iloc[sizes.rows["row"].to_numpy()].reset_index(drop=True)
    rows = error_rows(items, primed.sentences, corpus.forms, sizes.baseline)
    rows = rows.assign(error=rows[f"error_{error}"], **_means(sizes))
    rows = with_covariates(rows, wrapped, part, **options)
    by_target = tells_verbs_from_targets(items["prime_verb"], items["target"])
    draws = {"n_boot": n_boot, "n_permutations": n_permutations, "level": level, "seed": seed}
    outcomes = ("icl", *sizes.sizes)
    estimates = estimates_table(rows, outcomes, corpus.forms, by_target=by_target, covariates=COVARIATES, draws=draws)
    layers = {kind: np.concatenate([x[:, 0], x[:, 1]]) for kind, x in sizes.sizes.items()}
    return ErrorDrivenResult(
        forms=corpus.forms,
        error=error,
        baseline=sizes.baseline,
        by_target=by_target,
        level=level,
        rows=rows,
        primes=_primes(rows),
        estimates=estimates,
        by_layer=layer_table(rows, layers, by_target=by_target, draws=draws),
        evidence=evidence_of(estimates, level),
        verdict=verdict_of(estimates, level, error=error, baseline=sizes.baseline, by_target=by_target),
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"pairs, bootstrap and permutations": seed},
            options={"corpus": corpus.name, "n_pairs": len(items), "error": error, **draws},
        ),
    )


def _check_corpus(frame: pd.DataFrame, primed: PrimingResult | None) -> None:
    n_verbs = frame["prime_verb"].nunique()
    if n_verbs < MIN_VERBS:
        raise ValueError(
            f"the corpus has {n_verbs} prime verb(s); at least {MIN_VERBS} are needed for a slope over verbs"
        )
    names = ["prime", "target"]
    if primed is not None and not (
        len(primed.items) == len(frame) and (primed.items[names].to_numpy() == frame[names].to_numpy()).all()
    ):
        raise ValueError(
            f"the priming is of other pairs ({primed.corpus}); measure that of this corpus, or leave it out"
        )


def _chosen_pairs(frame: pd.DataFrame, sizes: UpdateSizes | None, n_pairs: int | None, seed: int) -> np.ndarray:
    chosen = np.ones(len(frame), dtype=bool)
    if sizes is not None:
        if n_pairs is not None:
            raise ValueError("got both sizes, which say which pairs to use, and n_pairs; give one of them")
        numbers = sizes.rows["row"].to_numpy()
        fits = numbers.max() < len(frame) and (np.diff(numbers) > 0).all()
        if not fits or (frame.iloc[numbers]["prime"].to_numpy() != sizes.rows["prime"].to_numpy()).any():
            raise ValueError("the sizes are of other pairs than the corpus has, or out of order; measure them again")
        chosen[:] = False
        chosen[numbers] = True
    elif n_pairs is not None:
        chosen[:] = False
        chosen[crossed_rows(frame, n_pairs, seed=seed)] = True
    if frame["prime_verb"][chosen].nunique() < MIN_VERBS:
        raise ValueError(f"the chosen pairs have fewer than {MIN_VERBS} prime verbs; ask for more pairs")
    return chosen


def _means(sizes: UpdateSizes) -> dict[str, np.ndarray]:
    """Means over layers, in the order of the rows: first form, second form."""
    found = {kind: np.concatenate([x[:, 0].mean(-1), x[:, 1].mean(-1)]) for kind, x in sizes.sizes.items()}
    return found | {f"placebo_{kind}": np.tile(x.mean(-1), 2) for kind, x in sizes.placebo.items()}


def _primes(rows: pd.DataFrame) -> pd.DataFrame:
    grouped = rows.drop(columns="target").groupby(["prime", "verb", "form"], sort=False)
    return grouped.mean().assign(n_targets=grouped.size()).reset_index()
