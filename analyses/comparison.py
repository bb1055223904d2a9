"""The inverse frequency effect of several models side by side: one table, and the trend over model size.

The claim to be looked at is that larger models show more of it (Zhou, Frank & McCoy, arXiv 2406.18501). Over models
m, for each estimand of `inverse_frequency_effect`,

    estimate(m) = a + b log10(parameters of m)        b: change when a model grows tenfold; 0 by chance

A handful of models cannot settle that, least of all models of different families: the trend says how many sizes it
rests on, and what else than size differs between the models.

Caveats:
- Models that differ in size differ in more: data, length of training, tokeniser. A trend is a description of these
  models.
- Each estimate has an error of its own, which the trend does not weigh. Read it beside the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from mechicl.analyses.inverse_frequency import IFEResult, holm_by_family
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.stats import ols

MIN_SIZES = 3
_TREND = ["scale", "estimand", "slope", "low", "high", "p", "spearman", "n_models", "n_sizes", "note"]


@dataclass(frozen=True)
class ComparisonResult(Result):
    """What several models show, and how it goes with their size.

    models: one row a model: model, family, n_params, verdict.
    estimates: the estimates of all, with a column model, and p_holm_across: the permutation p after Holm's correction
        over all models, in the families of `holm_by_family`.
    trend: one row a scale and estimand: slope of the estimate on log10(n_params), that is the change when the model
        grows tenfold, with its t interval and p (n - 2 degrees of freedom, one model a point); spearman, the rank
        correlation of estimate and size; n_models and n_sizes it rests on; note. NaN with fewer than 3 sizes.
    warnings: what else than size differs, in words.
    """

    forms: tuple[str, str]
    level: float
    models: pd.DataFrame
    estimates: pd.DataFrame
    trend: pd.DataFrame
    warnings: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The estimates of all models."""
        return self.estimates.copy()

    def plot(self, ax: Any = None, scale: str = "probability", estimands: Sequence[str] | None = None) -> Any:
        """Estimates and intervals, a row a model; returns matplotlib Axes."""
        from mechicl.views import plot_forest

        return plot_forest(self, estimands=estimands, scale=scale, ax=ax)


def compare(results: Sequence[IFEResult] | Mapping[str, IFEResult]) -> ComparisonResult:
    """Put IFE results next to each other. The names are a mapping's keys, otherwise the models' own.

    The trend is an ordinary regression with one point a model. It does not weight by precision: models of one size
    differ by far more than the error of each estimate, so the models, not the verbs, are the sample. It says nothing
    of single models; with 3 sizes its interval has one degree of freedom, and is wide for that reason.
    Compare `warnings` before reading anything into it.

    Raises ValueError for no results, names that are missing or not unique, and alternations that differ.
    """
    named = _named(results)
    forms = next(iter(named.values())).forms
    level = next(iter(named.values())).level
    if others := {name: result.forms for name, result in named.items() if result.forms != forms}:
        raise ValueError(f"got results on {forms} and on other forms: {others}; compare each alternation by itself")
    models = pd.DataFrame(
        {
            "model": list(named),
            "family": [result.provenance.family for result in named.values()],
            "n_params": pd.array([result.provenance.n_params for result in named.values()], dtype="Int64"),
            "verdict": [result.verdict for result in named.values()],
        }
    )
    tables = [result.estimates.assign(model=name) for name, result in named.items()]
    estimates = pd.concat(tables, ignore_index=True)
    estimates.insert(0, "model", estimates.pop("model"))
    warnings = tuple(_differences(named))
    facts = {name: result.provenance.model_facts() for name, result in named.items()}
    return ComparisonResult(
        forms=forms,
        level=level,
        models=models,
        estimates=_corrected(estimates, forms),
        trend=_trend(estimates, models, level, "; ".join(text for text in warnings if text.startswith("families"))),
        warnings=warnings,
        provenance=Provenance.of(
            seeds={f"{name}.{key}": seed for name, r in named.items() for key, seed in r.provenance.seeds.items()},
            options={"models": facts},
        ),
    )


def _named(results: Sequence[IFEResult] | Mapping[str, IFEResult]) -> dict[str, IFEResult]:
    if not results:
        raise ValueError("got no results, expected at least one from inverse_frequency_effect")
    if isinstance(results, Mapping):
        return dict(results)
    names = [result.provenance.model for result in results]
    cure = "pass a mapping {'name': result, ...} instead"
    if missing := [i for i, name in enumerate(names) if name is None]:
        raise ValueError(f"the results {missing} (counted from 0) do not name their model; {cure}")
    if repeated := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"several results are of {repeated}, expected unique names; {cure}")
    return {str(name): result for name, result in zip(names, results, strict=True)}


def _corrected(estimates: pd.DataFrame, forms: tuple[str, str]) -> pd.DataFrame:
    """The estimates with p_holm_across, right of p_holm."""
    estimates = estimates.copy()
    estimates.insert(list(estimates.columns).index("p_holm") + 1, "p_holm_across", holm_by_family(estimates, forms))
    return estimates


def _trend(estimates: pd.DataFrame, models: pd.DataFrame, level: float, remark: str) -> pd.DataFrame:
    sized = estimates.merge(models[["model", "n_params"]].dropna(), on="model")
    rows = []
    for (scale, estimand), group in estimates.groupby(["scale", "estimand"], sort=False):
        points = sized[(sized["scale"] == scale) & (sized["estimand"] == estimand)]
        n_sizes = points["n_params"].nunique()
        if n_sizes < MIN_SIZES:
            note = (
                f"no trend: {len(group)} model(s) with {n_sizes} known size(s), at least {MIN_SIZES} sizes are needed"
            )
            rows.append((scale, estimand, *[np.nan] * 5, len(points), n_sizes, note))
            continue
        size = np.log10(points["n_params"].to_numpy(dtype=np.float64))
        values = points["estimate"].to_numpy()
        fit = ols(size, values, level=level)
        # Ranks of a constant have no correlation.
        rho = float(scipy.stats.spearmanr(size, values).statistic) if np.ptp(values) > 0 else np.nan
        rows.append((scale, estimand, fit.slope, fit.low, fit.high, fit.p, rho, len(points), n_sizes, remark))
    return pd.DataFrame(rows, columns=_TREND)


def _differences(named: Mapping[str, IFEResult]) -> list[str]:
    """What else than size differs between the models."""
    facts = {name: result.provenance for name, result in named.items()}
    found = [
        _differing("families", {name: fact.family for name, fact in facts.items()}, "a trend over size mixes them"),
        _differing("dtype", {name: fact.dtype for name, fact in facts.items()}),
        _differing("prepend_bos", {name: fact.prepend_bos for name, fact in facts.items()}),
        _differing("weight processing", {name: fact.processed for name, fact in facts.items()}),
        _differing("corpus", {name: fact.options.get("corpus") for name, fact in facts.items()}),
        _differing("source of the bias", {name: _source_of_bias(fact) for name, fact in facts.items()}),
        _differing("level", {name: result.level for name, result in named.items()}, "intervals do not compare"),
    ]
    if len({frozenset(result.verbs["verb"]) for result in named.values()}) > 1:
        found.append("verbs differ: " + ", ".join(f"{name} has {len(r.verbs)}" for name, r in named.items()))
    if unknown := [name for name, fact in facts.items() if fact.n_params is None]:
        found.append(f"size unknown: {', '.join(unknown)} (left out of the trend)")
    for fact_name in ("weights_sha256", "model"):
        by_fact = _grouped({name: getattr(fact, fact_name) for name, fact in facts.items()})
        same = [names for value, names in by_fact.items() if value != "unknown" and len(names) > 1]
        if same:
            found += [f"the same model twice: {', '.join(names)} (equal {fact_name})" for names in same]
            break
    return [text for text in found if text]


def _source_of_bias(fact: Provenance) -> str:
    return "external norms" if fact.options.get("external_norms") else "the model"


def _differing(what: str, values: Mapping[str, Any], consequence: str = "") -> str:
    groups = _grouped(values)
    if len(groups) < 2:
        return ""
    text = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
    return f"{what} differ{'' if what == 'families' else 's'} ({text})" + (f": {consequence}" if consequence else "")


def _grouped(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Value, in words -> the models that have it."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault("unknown" if value is None else str(value), []).append(name)
    return groups
