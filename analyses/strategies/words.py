"""What the Bayesian account says of a run of trained models, in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from mechicl.wording import number, p_value, percent, with_interval

SETTINGS = {
    "balls_and_urns": "balls and urns",
    "markov_chains": "Markov chains",
    "linear_regression": "linear regression",
    "classification": "classification",
}
FAR = 0.5  # of d(M, G): farther from every mixture than that, d_rel says little
GOOD, CHANCE = 0.9, 0.05  # a correlation that is a prediction; p above which it is no better than of shuffled cells
RISE = 0.2  # of d_rel, from below .5: what is called transience


def account_verdict(setting: str, fit: Any, transitions: Any, transience: pd.DataFrame) -> str:
    """How well training is predicted, by which numbers, when models turn to memorising, and whether it is transience.

    In this order. Sentences hold for null results too: models that are near neither strategy, a model of training that
    predicts nothing that it was not fitted to, parameters on a bound, no turn at any diversity.
    """
    words = [
        mixture_sentence(setting, fit),
        prediction_sentence(fit),
        parameter_sentence(fit),
        transition_sentence(transitions),
        transience_sentence(transience, unit_of(fit)),
    ]
    return " ".join(words)


def judgement(fit: Any) -> str:
    """In one word: "far" (d_rel says little), "untested" (nothing held out), "predicts", "partly" or "fails".

    By the correlation of d_rel, the model's against the transformers', over cells that were not fitted: "predicts"
    where the interval lies above .9, "fails" where it holds 0, p against shuffled cells is above .05, or the loss there
    is no better than with one weight for all cells.
    """
    if far_share(fit) > 0.5:
        return "far"
    held = measure(fit, "d_rel", "held_out")
    if not (~fit.fitted & fit.kept[:, None]).any():
        return "untested"
    low = held["low"] if math.isfinite(held["low"]) else held["value"]
    if math.isnan(low) or low <= 0 or held["p"] > CHANCE or explained(fit) <= 0:
        return "fails"
    return "predicts" if low > GOOD else "partly"


def mixture_sentence(setting: str, fit: Any) -> str:
    """How far the transformers are from mixtures of both strategies."""
    residual = fit.residual[:, fit.kept]
    known = residual[np.isfinite(residual)]
    n_models = fit.d_rel.shape[0] * fit.d_rel.shape[2]
    middle = float(np.median(known)) if len(known) else math.nan
    many = "One transformer" if n_models == 1 else f"{n_models} transformers"
    start = f"{many} on {SETTINGS.get(setting, setting.replace('_', ' '))}"
    if far_share(fit) > 0.5:
        return (
            f"{start} are near no mixture of memorising and generalising: at the median checkpoint past the threshold "
            f"the best one is {number(middle, 2)} of the strategies' own distance away, so that d_rel says little, and "
            "so does all that follows."
        )
    often = far_share(fit)
    words = f"{start} stay near mixtures of memorising and generalising: the best one is {number(middle, 2)} of the "
    words += "strategies' own distance away (median)"
    return words + (f", though above {number(FAR, 1)} at {percent(often)} of checkpoints." if often > 0.1 else ".")


def prediction_sentence(fit: Any) -> str:
    """How well the model of training tells d_rel where it was fitted, and where it was not."""
    held, fitted = (measure(fit, "d_rel", cells) for cells in ("held_out", "fitted"))
    where = f"{_value(fitted)} where it was fitted"
    if judgement(fit) == "untested" or (judgement(fit) == "far" and not (~fit.fitted & fit.kept[:, None]).any()):
        return f"The model of training correlates with d_rel by {where}; nothing was held out, which is no test."
    if math.isnan(held["value"]):
        return f"On checkpoints and diversities that it was not fitted to, d_rel does not vary; correlation {where}."
    words = {"predicts": "predicts d_rel", "partly": "predicts d_rel in part", "fails": "fails to predict d_rel"}
    chance = f", shuffled {number(held['control'], 2)}" if math.isfinite(held["control"]) else ""
    chance += f", {p_value(held['p'])}" if math.isfinite(held["p"]) else ""
    found = (
        f"The model of training {words.get(judgement(fit), 'goes with d_rel')} at checkpoints and diversities that it "
        f"was not fitted to: correlation {_value(held)}{chance}; {where}."
    )
    return f"{found} {_loss_sentence(fit)}".strip()


def parameter_sentence(fit: Any) -> str:
    """The three numbers, and which of them are none."""
    rows = fit.parameters.to_dict("records")
    said = ", ".join(f"{row['parameter']} {with_interval(row['estimate'], row['low'], row['high'], 2)}" for row in rows)
    words = f"Its numbers: {said}."
    bound = [row for row in rows if row["bound"]]
    if bound:
        named = " and ".join(f"{row['parameter']} ({row['bound']})" for row in bound)
        words += (
            f" On the bound of the search, and so no {'estimate is' if len(bound) == 1 else 'estimates are'} {named}."
        )
    return words if fit.converged else f"{words} The fit did not converge: they are where the search stopped."


def transition_sentence(transitions: Any) -> str:
    """When transformers turn from generalising to memorising, and how that time grows with diversity."""
    times = transitions.times
    seen = times[times["observed"].notna()]
    if seen.empty:
        n = int(times["predicted"].notna().sum())
        expected = f", and the model of training expects it at {n} of {len(times)}" if n else ""
        return f"At no diversity do they turn from generalising to memorising while they are watched{expected}."
    first, last = seen.iloc[0], seen.iloc[-1]
    words = f"They turn from generalising to memorising at {_counted(seen['diversity'])}, after {_steps(first)}"
    words += f" to {_steps(last)} steps" if len(seen) > 1 else " steps"
    observed, predicted = (scaling(transitions, kind) for kind in ("observed", "predicted"))
    if observed is None or math.isnan(observed["slope"]):
        return f"{words}; these are too few for an exponent."
    grows = "faster than in proportion to D" if observed["low"] > 1 else "not clearly faster than in proportion to D"
    if observed["high"] < 1:
        grows = "slower than in proportion to D"
    words += f": {grows}, with exponent {_slope(observed)}"
    known = predicted is not None and math.isfinite(predicted["slope"])
    return f"{words} (predicted {_slope(predicted)})." if known else f"{words}."


def transience_sentence(transience: pd.DataFrame, unit: str) -> str:
    """At which diversities models generalise first and memorise later."""
    turned = transience.assign(turned=(transience["lowest"] < 0.5) & (transience["rise"] >= RISE))
    by_diversity = turned.groupby("diversity")
    every, means = by_diversity["turned"].all(), by_diversity[["lowest", "last", "rise", "fresh_rise"]].mean()
    if not every.any():
        some = int(turned["turned"].sum())
        words = (
            f"No diversity shows transience, a rise of d_rel by {number(RISE, 1)} or more from below 0.5, in every seed"
        )
        return f"{words}; {some} of {len(turned)} models do." if some else f"{words}, and no model does."
    shown = means[every]
    most = float(shown["rise"].idxmax())
    row, own = shown.loc[most], transience[transience["diversity"] == most]
    spread = f" ({number(own['rise'].min(), 2)} to {number(own['rise'].max(), 2)} over {len(own)} seeds)"
    fresh = f"the loss on fresh tasks, from its lowest, by {number(row['fresh_rise'], 2)} {unit}"
    return (
        f"Generalising is transient at {_counted(pd.Series(shown.index))}: at D = {most:g} d_rel rises from "
        f"{number(row['lowest'], 2)} by {number(row['rise'], 2)}{spread if len(own) > 1 else ''} until training ends, "
        f"and {fresh}."
    )


def measure(fit: Any, name: str, cells: str) -> dict[str, Any]:
    """The row of a measure; all NaN where there is none."""
    table = fit.measures
    rows = table[(table["measure"] == name) & (table["cells"] == cells)].to_dict("records")
    return dict(rows[0]) if rows else dict.fromkeys(table.columns, math.nan)


def scaling(transitions: Any, kind: str) -> dict[str, Any] | None:
    """The row of an exponent; None where there is none."""
    rows = transitions.scaling
    found = rows[rows["time"] == kind].to_dict("records")
    return dict(found[0]) if found else None


def far_share(fit: Any) -> float:
    """The share of cells past the threshold that are farther than `FAR` from every mixture."""
    residual = fit.residual[:, fit.kept]
    known = residual[np.isfinite(residual)]
    return float((known > FAR).mean()) if len(known) else 1.0


def explained(fit: Any) -> float:
    """The share of the way from one weight for all cells to the best weights that the model goes, where not fitted."""
    rows = fit.baselines.set_index("baseline")
    return float(rows.loc["model", "held_out_explained"]) if "held_out_explained" in rows else math.nan


def unit_of(fit: Any) -> str:
    """What losses and distances are measured in."""
    return "nats" if fit.distance == "kl" else "squared error"


def _loss_sentence(fit: Any) -> str:
    share = explained(fit)
    if math.isnan(share):
        return ""
    if share <= 0:
        return "There its loss is no better than with one weight for all cells."
    return f"There it goes {percent(share)} of the way from one weight for all cells to the best weights."


def _value(row: dict[str, Any]) -> str:
    return with_interval(row["value"], row["low"], row["high"], 2)


def _slope(row: dict[str, Any]) -> str:
    return with_interval(row["slope"], row["low"], row["high"], 2)


def _steps(row: Any) -> str:
    return f"{row['observed']:,.0f}"


def _counted(diversities: pd.Series) -> str:
    """ "D = 64", "D = 16 and 64", "5 diversities from D = 4 to 64"."""
    known = sorted(float(diversity) for diversity in diversities)
    if len(known) <= 2:
        return f"D = {' and '.join(f'{diversity:g}' for diversity in known)}"
    return f"{len(known)} diversities from D = {known[0]:g} to {known[-1]:g}"
