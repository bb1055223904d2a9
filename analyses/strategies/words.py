"""What the Bayesian account says of a run of trained models, in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.words_shared import FAR, counted, far_share, setting_words
from mechicl.analyses.strategies.words_transience import transience_sentence
from mechicl.wording import number, p_value, percent, with_interval

GOOD, CHANCE = 0.9, 0.05  # a correlation that is a prediction; p above which it is no better than of shuffled cells


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
        transience_sentence(fit, transience),
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
    many = "one transformer" if n_models == 1 else f"{n_models} transformers"
    often = far_share(fit)
    words = (
        f"On {setting_words(setting)} {many} lie {number(middle, 2)} of the distance between memorising and "
        f"generalising away from the nearest mixture of both (median past the threshold; above {number(FAR, 1)} at "
        f"{percent(often)} of checkpoints)."
    )
    return f"{words} They are near neither, so d_rel says little, and so does what follows." if often > 0.5 else words


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
        words += f" At a bound of the search, and so no estimate: {named}."
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
    words = f"They turn from generalising to memorising at {counted(seen['diversity'])}, after {_steps(first)}"
    words += f" to {_steps(last)} steps" if len(seen) > 1 else " steps"
    observed, predicted = (scaling(transitions, kind) for kind in ("observed", "predicted_where_observed"))
    if math.isnan(observed["slope"]):
        return f"{words}; these are too few for an exponent."
    grows = "" if math.isfinite(observed["low"]) else "; one seed gives no interval"
    if observed["low"] > 1:
        grows = ", faster than in proportion to D"
    elif observed["high"] < 1:
        grows = ", slower than in proportion to D"
    elif math.isfinite(observed["low"]):
        grows = ", not clearly faster or slower than in proportion to D"
    return f"{words}: exponent {_slope(observed)}{grows}{_beside(observed, predicted)}."


def measure(fit: Any, name: str, cells: str) -> dict[str, Any]:
    """The row of a measure; all NaN where there is none."""
    table = fit.measures
    rows = table[(table["measure"] == name) & (table["cells"] == cells)].to_dict("records")
    return dict(rows[0]) if rows else dict.fromkeys(table.columns, math.nan)


def scaling(transitions: Any, kind: str) -> dict[str, Any]:
    """The row of an exponent; all NaN where there is none."""
    rows = transitions.scaling
    found = rows[rows["time"] == kind].to_dict("records")
    return dict(found[0]) if found else dict.fromkeys(rows.columns, math.nan)


def explained(fit: Any) -> float:
    """The share of the way from one weight for all cells to the best weights that the model goes, where not fitted."""
    rows = fit.baselines.set_index("baseline")
    return float(rows.loc["model", "held_out_explained"]) if "held_out_explained" in rows else math.nan


def _loss_sentence(fit: Any) -> str:
    share = explained(fit)
    if math.isnan(share):
        return ""
    if share <= 0:
        return "In distance it is no better there than one weight for all cells."
    return f"In distance it goes {percent(share)} of the way there from one weight for all cells to the best weights."


def _value(row: dict[str, Any]) -> str:
    return with_interval(row["value"], row["low"], row["high"])


def _beside(observed: dict[str, Any], predicted: dict[str, Any]) -> str:
    """The predicted exponent, and whether the intervals of both leave each other out."""
    if math.isnan(predicted["slope"]):
        return ""
    other = f"the {_slope(predicted)} predicted for the same D"
    if observed["high"] < predicted["low"]:
        return f", but below {other}"
    return f", but above {other}" if observed["low"] > predicted["high"] else f", beside {other}"


def _slope(row: dict[str, Any]) -> str:
    return with_interval(row["slope"], row["low"], row["high"], 2)


def _steps(row: Any) -> str:
    return f"{row['observed']:,.0f}"
