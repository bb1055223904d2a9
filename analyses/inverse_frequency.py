"""The inverse frequency effect (IFE): do primes whose verb disprefers their form prime that form more?

An error-driven learner changes more after a surprising example. The first form of an alternation (PD, say) is a
surprise after a verb with a low bias x to it, the second (DO) after a verb with a high one. Over verbs v, with x(v) the
verb's bias to the first form and y_s(v) the share of the first form in targets after primes of v in form s,

    y_s(v) = a_s + b_s x(v),        the IFE predicts b_s < 0 for both s.

Estimands, each on two scales (probability: y over bias; logit: L over bias_logit, in nats per nat):

    slope_PD, slope_DO           b_PD and b_DO, the paper's two tests
    common_shift                 -(b_PD + b_DO) / 2: above 0 with an IFE, but also where verbs shift the target
                                 whatever the prime's structure
    pe_slope                     b_PD - b_DO: the slope of the priming effect y_PD - y_DO itself; 0 where only such a
                                 structure-independent verb effect is at work
    slope_neutral                slope after neutral primes (the verb in neither form): that verb effect, measured
    slope_PD_from_neutral, ...   slopes of y_PD - y_neutral and y_DO - y_neutral
    common_shift_from_neutral    common_shift + slope_neutral
    slope_unprimed               slope of the targets without any prime: what the pairing alone brings along
    slope_PD_raw, slope_DO_raw   the paper's slopes, of plain means, where the others are of adjusted means

In the paper's design no target has its prime's verb, so that verbs leaning to PD meet targets leaning to DO and plain
means fall with about -1 / (number of verbs - 1) even where nothing is primed. Given the items, outcomes are therefore
means adjusted for the targets that a verb met (`mechicl.adjustment`); a published table has plain means only.

No IFE: slopes 0. Source: Zhou, Frank & McCoy, arXiv 2406.18501 (slopes b_PD and b_DO on the
probability scale); the other estimands and the logit scale are added here, because a sigmoid saturates, and because a
slope alone does not tell the accounts apart.

Caveats:
- An IFE by itself does not identify gradient descent: activation and Bayesian accounts produce it too.
- Bias and outcome come from one model, unless `bias` gives norms from outside; what distorts its preferences is in
  both.
- "No IFE" says that none was seen. The interval says how large a slope could have been missed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.verb_table import read_verb_table
from mechicl.analyses.verdict import PRIMARY, SECONDARY, form_evidence, verdict_in_words
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.stats import holm, leave_one_out_slopes, ols, slope_interval, slope_permutation_p

_ROUNDING = 12  # decimals kept of differences of outcomes: equal outcomes then differ by exactly 0
_COLUMNS = {PRIMARY: ("bias", "y"), SECONDARY: ("bias_logit", "L")}


@runtime_checkable
class HasVerbTable(Protocol):
    """What `inverse_frequency_effect` needs of a priming result."""

    @property
    def forms(self) -> tuple[str, str]:
        """The two forms of the alternation, the first of them the one that biases and shares count."""

    @property
    def provenance(self) -> Provenance:
        """Where the scores come from."""

    def verb_table(self) -> pd.DataFrame:
        """One row a prime verb: verb, bias, bias_logit, y_<form>, y_neutral, L_<form>, L_neutral."""


@dataclass(frozen=True)
class IFEResult(Result):
    """Slopes over verb bias, and what they say.

    verbs: the table that was used: verb, bias, bias_logit, y_<context>, L_<context>, and y_<context>_raw,
        L_<context>_raw where y and L are adjusted means (see `mechicl.analyses.verb_table`).
    estimates: one row a scale and estimand: scale, estimand, estimate; se, ols_low, ols_high, p_ols (least squares, as
        in the paper); low, high (bootstrap over verbs); p_permutation; p_holm; loo_low, loo_high (range with any one
        verb left out); n_verbs; interval ("bca", or "percentile" where BCa is undefined).
    verdict: in words. evidence: form -> "ife", "none" or "reversed", on the probability scale.
    """

    forms: tuple[str, str]
    level: float
    verbs: pd.DataFrame
    estimates: pd.DataFrame
    verdict: str
    evidence: dict[str, str]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The estimates."""
        return self.estimates.copy()

    def plot(self, ax: Any = None, scale: str = PRIMARY) -> Any:
        """Outcomes over bias, a point a verb and a line a form; returns matplotlib Axes."""
        from mechicl.views import plot_ife_scatter

        return plot_ife_scatter(self, scale=scale, ax=ax)


def inverse_frequency_effect(
    data: HasVerbTable | pd.DataFrame,
    *,
    bias: pd.DataFrame | None = None,
    forms: tuple[str, str] | None = None,
    outcomes: Mapping[str, str] | None = None,
    n_boot: int = 10_000,
    n_permutations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> IFEResult:
    """Test for the IFE over the verbs of a priming result, or of a frame with one row a verb.

    A frame has the columns verb, bias and y_<form> for both forms (`forms`, by default those of the priming result,
    for a frame PD and DO), all probabilities of the first form. Published columns (do_pd, pd_pd: outcome after DO and
    PD primes) are recognised; `outcomes` ({"PD": "my_column"}) overrides both. Log-odds bias_logit and L_<form> are
    used where given; where a frame has only probabilities they are the logit of the verb's mean probabilities, which is
    not the mean of the logits. y_neutral adds the estimands from the neutral baseline. `bias` (columns verb, bias in
    [0, 1]) replaces x by external norms, such as human ratings, so that x and y do not come from the same model; on the
    logit scale x is then the norm's logit. Verbs without a norm are dropped with a warning.

    Intervals: verbs are drawn with replacement (BCa; about .92 true coverage at 22 verbs for .95, see
    `mechicl.stats.slope_interval`). p_permutation: bias permuted over verbs, valid at any number of verbs. p_holm is
    p_permutation after Holm's correction by `holm_by_family`.

    The verdict. A form has the IFE when, on the probability scale, its slope is below 0, the interval excludes 0
    and p_holm < 1 - level, and it is not negligible (`NEGLIGIBLE`, .005); it is "reversed" when the same holds
    above 0; otherwise "none" (no evidence, which is not evidence of none: see the interval). The verdict adds, when
    so, that the same rule on the slopes from the neutral prime finds something else (a verb's own effect then hides
    an IFE, or makes one up), or on the logit scale; to a slope that was found, that outcomes could not be adjusted
    for targets; to an IFE, that pe_slope's interval includes 0, so a verb effect that ignores structure could
    explain it.

        result = inverse_frequency_effect(pd.read_csv("scores.csv"))
        result.verdict      # "IFE on DO primes, not on PD primes"

    Raises ValueError for missing columns, fewer than 3 verbs, repeated verbs, values that are not finite (named by
    verb), a bias that does not vary, probabilities outside [0, 1], forms that do not fit the data.
    """
    frame, forms, before = _opened(data, forms)
    verbs = read_verb_table(frame, forms, outcomes=outcomes, bias=bias)
    scales = [scale for scale in _COLUMNS if scale == PRIMARY or np.isfinite(verbs.drop(columns="verb")).all(axis=None)]
    tables = [_scale_estimates(verbs, forms, scale, level, n_boot, n_permutations, seed) for scale in scales]
    estimates = pd.concat(tables, ignore_index=True)
    options = {
        "forms": forms,
        "outcomes": None if outcomes is None else dict(outcomes),
        "external_norms": bias is not None,
        "n_boot": n_boot,
        "n_permutations": n_permutations,
        "level": level,
    }
    return IFEResult(
        forms=forms,
        level=level,
        verbs=verbs,
        estimates=estimates,
        verdict=verdict_in_words(estimates, forms, level),
        evidence=form_evidence(estimates, forms, level),
        provenance=Provenance.of(
            before.model_facts() if before else None,
            seeds={**(before.seeds if before else {}), "inverse_frequency": seed},
            # What the scores were made with stays known, the corpus among it.
            options={**(before.options if before else {}), **options},
        ),
    )


def _opened(
    data: HasVerbTable | pd.DataFrame, forms: tuple[str, str] | None
) -> tuple[pd.DataFrame, tuple[str, str], Provenance | None]:
    """The frame, its forms, and where it comes from if that is known."""
    if isinstance(data, pd.DataFrame):
        return data, forms or ("PD", "DO"), None
    if forms is not None and forms != data.forms:
        raise ValueError(f"got forms {forms}, but the priming result has {data.forms}; leave forms out, or give these")
    return data.verb_table(), data.forms, data.provenance


def _estimand_outcomes(
    verbs: pd.DataFrame, forms: tuple[str, str], letter: str
) -> dict[str, Float[np.ndarray, "verb"]]:
    """Estimand -> the outcome whose slope on bias it is. A sum of slopes is the slope of the sum, so all are slopes."""
    first, second = (verbs[f"{letter}_{form}"].to_numpy() for form in forms)
    found = {
        f"slope_{forms[0]}": first,
        f"slope_{forms[1]}": second,
        "common_shift": -(first + second) / 2,
        "pe_slope": first - second,
    }
    if f"{letter}_neutral" in verbs:
        neutral = verbs[f"{letter}_neutral"].to_numpy()
        found |= {
            "slope_neutral": neutral,
            f"slope_{forms[0]}_from_neutral": first - neutral,
            f"slope_{forms[1]}_from_neutral": second - neutral,
            "common_shift_from_neutral": neutral - (first + second) / 2,
        }
    if f"{letter}_unprimed" in verbs:
        found["slope_unprimed"] = verbs[f"{letter}_unprimed"].to_numpy()
    for form in forms:
        if f"{letter}_{form}_raw" in verbs:
            found[f"slope_{form}_raw"] = verbs[f"{letter}_{form}_raw"].to_numpy()
    return {name: np.round(outcome, _ROUNDING) for name, outcome in found.items()}


def _scale_estimates(
    verbs: pd.DataFrame,
    forms: tuple[str, str],
    scale: str,
    level: float,
    n_boot: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """The rows of one scale. Every estimand meets the same resamples and permutations."""
    x_name, letter = _COLUMNS[scale]
    x = verbs[x_name].to_numpy()
    rows = []
    for estimand, y in _estimand_outcomes(verbs, forms, letter).items():
        fit = ols(x, y, level=level)
        interval = slope_interval(x, y, n_boot=n_boot, level=level, seed=seed)
        without_one = leave_one_out_slopes(x, y)
        rows.append(
            {
                "scale": scale,
                "estimand": estimand,
                "estimate": fit.slope,
                "se": fit.se,
                "ols_low": fit.low,
                "ols_high": fit.high,
                "p_ols": fit.p,
                "low": interval.low,
                "high": interval.high,
                "p_permutation": slope_permutation_p(x, y, n_permutations=n_permutations, seed=seed),
                "p_holm": np.nan,
                "loo_low": float(np.nanmin(without_one)),
                "loo_high": float(np.nanmax(without_one)),
                "n_verbs": len(x),
                "interval": interval.method,
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm_by_family(table, forms)
    return table


def holm_by_family(estimates: pd.DataFrame, forms: tuple[str, str]) -> pd.Series:
    """p_permutation after Holm's correction within each scale and family of estimands, over all rows of the frame.

    Families: the two slopes b_s; the two from the neutral prime; the two raw ones; the estimands made of both forms.
    Controls (slope_neutral, slope_unprimed) are baselines, no hypotheses: NaN.
    """

    def family(estimand: str) -> str | None:
        if estimand in ("slope_neutral", "slope_unprimed"):
            return None
        kinds = {f"slope_{form}{kind}": f"slopes{kind}" for form in forms for kind in ("", "_from_neutral", "_raw")}
        return kinds.get(estimand, "both forms")

    families = estimates["estimand"].map(family)
    by_family = estimates.groupby([estimates["scale"], families])["p_permutation"]
    return by_family.transform(lambda p: holm(p.to_numpy())).where(families.notna())
