"""The table that the inverse frequency effect is read from: one row a verb, its bias and its outcomes on both scales.

Takes the table of a priming result, or a foreign frame (published or one's own scores), checks it and completes it.
Columns of the finished table: verb, bias, bias_logit, y_<context> and L_<context> for both forms, and for the contexts
"neutral" (a neutral prime) and "unprimed" (the verb's targets alone) where they are there. `bias` and `y_` are
probabilities of the first form, `bias_logit` and `L_` log-odds in nats. Where the frame has means that are adjusted for
the targets that a verb met (y_<context>_adjusted), y_<context> are these, and y_<context>_raw the plain means.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

MIN_VERBS = 3
CONTROLS = ("neutral", "unprimed")


def read_verb_table(
    frame: pd.DataFrame,
    forms: tuple[str, str],
    *,
    outcomes: Mapping[str, str] | None = None,
    bias: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The finished table; see `inverse_frequency_effect` for the columns that are recognised and the errors raised."""
    _check_forms(forms, outcomes)
    names = _outcome_columns(frame, forms, dict(outcomes or {}))
    _require(frame, ["verb", *([] if bias is not None else ["bias"]), *names.values()], forms)
    if frame["verb"].isna().any():
        raise ValueError(
            f"the verb is missing in {int(frame['verb'].isna().sum())} rows; name the verb or drop the row"
        )
    table = pd.DataFrame({"verb": frame["verb"].astype(str).to_numpy()})
    _refuse_repeated(table["verb"], "the frame")
    if bias is None:
        table["bias"] = _numbers(frame, "bias")
    contexts = {context: _numbers(frame, column) for context, column in names.items()}
    for context, values in contexts.items():
        table[f"y_{context}"] = values
    own_logits = {"bias": "bias_logit"} | {context: f"L_{context}" for context in names}
    for context, column in own_logits.items():
        # Log-odds of the frame belong to its own shares: not to outcomes or norms that replace them.
        replaced = bias is not None if context == "bias" else names[context] != f"y_{context}"
        if column in frame and not replaced and np.isfinite(given := _numbers(frame, column)).any():
            table[column] = given
    if bias is not None:
        table = _with_norms(table, bias)
    table = _without_partial_context(table)
    _check_values(table)
    for share, logits in [("bias", "bias_logit"), *((f"y_{c}", f"L_{c}") for c in names if f"y_{c}" in table)]:
        if logits not in table:
            table[logits] = logit(table[share])
    shares = [column for column in table if str(column).startswith("y_")]
    table = table[["verb", "bias", "bias_logit", *shares, *(str(c).replace("y_", "L_", 1) for c in shares)]]
    return _with_adjusted(table, frame, [str(c)[2:] for c in shares])


def _with_adjusted(table: pd.DataFrame, frame: pd.DataFrame, contexts: list[str]) -> pd.DataFrame:
    """The adjusted means in the place of the plain ones, if every context but "unprimed" has them for every verb.

    They may leave [0, 1] a little: the model behind them is additive.
    """
    rows = frame.assign(verb=frame["verb"].astype(str)).set_index("verb")
    columns = [f"{letter}_{context}" for letter in "yL" for context in contexts if context != "unprimed"]
    if any(f"{column}_adjusted" not in rows for column in columns):
        return table
    adjusted = rows.loc[table["verb"], [f"{column}_adjusted" for column in columns]].to_numpy(dtype=np.float64)
    if not np.isfinite(adjusted).all():
        return table
    plain = table[columns].add_suffix("_raw")
    return table.assign(**dict(zip(columns, adjusted.T, strict=True))).join(plain)


def check_slopes_defined(verbs: Sequence[str], bias: pd.DataFrame | None = None) -> None:
    """Refuse (ValueError) prime verbs over which no slope can be fitted: ask before hours of scoring, not after.

    Too few verbs, or external norms (`bias`) that are malformed, repeat a verb or cover too few of the verbs.
    """
    if len(verbs) < MIN_VERBS:
        raise ValueError(f"slope undefined with {len(verbs)} verbs ({_list(verbs)}); give at least {MIN_VERBS}")
    if bias is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # verbs without a norm are named when the norms are used
            _with_norms(pd.DataFrame({"verb": list(verbs)}), bias)


def _check_forms(forms: tuple[str, str], outcomes: Mapping[str, str] | None) -> None:
    if len(set(forms)) != 2 or set(CONTROLS) & set(forms) or not all(forms):
        raise ValueError(f"got forms {forms}, expected two different names such as ('PD', 'DO'), neither 'neutral'")
    if unknown := sorted(set(outcomes or {}) - {*forms, *CONTROLS}):
        raise ValueError(f"got outcomes for {unknown}, expected the forms {list(forms)} or one of {list(CONTROLS)}")


def _outcome_columns(frame: pd.DataFrame, forms: tuple[str, str], outcomes: dict[str, str]) -> dict[str, str]:
    """Context -> column of its probabilities: as told, else y_<context>, else published style such as do_pd."""
    names = {}
    for context in (*forms, *CONTROLS):
        published = f"{context}_{forms[0]}".lower()
        found = next((c for c in (f"y_{context}", published) if c in frame), f"y_{context}")
        names[context] = outcomes.get(context, found)
    for context in CONTROLS:
        if context not in outcomes and (names[context] not in frame or frame[names[context]].isna().all()):
            del names[context]
    return names


def _require(frame: pd.DataFrame, columns: list[str], forms: tuple[str, str]) -> None:
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(
            f"the frame lacks the columns {missing}; it has {[str(column) for column in frame.columns]}. Rename them, "
            f"e.g. frame.rename(columns={{'my_column': {missing[0]!r}}}), or name the columns of the outcomes with "
            f"outcomes={{{forms[0]!r}: 'my_column', ...}}, and the two forms with forms={forms}"
        )


def _numbers(frame: pd.DataFrame, column: str) -> Any:
    try:
        return pd.to_numeric(frame[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the column {column!r} holds what is not a number ({error}); convert or drop it") from error


def _refuse_repeated(verbs: pd.Series, where: str) -> None:
    if repeated := sorted(set(verbs[verbs.duplicated()])):
        raise ValueError(f"{where} has several rows for {_list(repeated)}; average them to one row a verb")


def _with_norms(table: pd.DataFrame, bias: pd.DataFrame) -> pd.DataFrame:
    """The table with external norms as x; verbs without a norm are dropped, aloud."""
    if missing := [column for column in ("verb", "bias") if column not in bias]:
        raise ValueError(
            f"the norms lack the columns {missing}; they have {[str(c) for c in bias.columns]}; rename them"
        )
    norms = pd.Series(_numbers(bias, "bias"), index=bias["verb"].astype(str).to_numpy())
    _refuse_repeated(norms.index.to_series(), "the frame of norms")
    known = table["verb"].map(norms)
    if known.isna().any():
        dropped = _list(table["verb"][known.isna()])
        # Four frames up: the caller of the analysis.
        warnings.warn(f"dropped the verbs without a norm: {dropped}", UserWarning, stacklevel=4)
    table = table.assign(bias=known)[known.notna()].reset_index(drop=True)
    if len(table) < MIN_VERBS:
        raise ValueError(
            f"slope undefined with {len(table)} verbs that have a norm; give norms for at least {MIN_VERBS}"
        )
    return table


def _without_partial_context(table: pd.DataFrame) -> pd.DataFrame:
    """A baseline serves only where every verb has it: slopes over different verbs do not compare."""
    for context in CONTROLS:
        if f"y_{context}" in table and (absent := table[f"y_{context}"].isna()).any():
            lacking = _list(table["verb"][absent])
            warnings.warn(f"left out the {context} baseline, which is missing for {lacking}", UserWarning, stacklevel=4)
            table = table.drop(columns=[f"y_{context}", f"L_{context}"], errors="ignore")
    return table


def _check_values(table: pd.DataFrame) -> None:
    if len(table) < MIN_VERBS:
        raise ValueError(f"slope undefined with {len(table)} verbs; give at least {MIN_VERBS}")
    for column in table.columns.drop("verb"):
        values = table[column].to_numpy()
        if (bad := ~np.isfinite(values)).any():
            raise ValueError(
                f"{column} is not finite (NaN or infinite) for {_list(table['verb'][bad])}; drop these verbs or mend it"
            )
        if (column == "bias" or column.startswith("y_")) and (bad := (values < 0) | (values > 1)).any():
            raise ValueError(
                f"{column} is outside [0, 1] for {_list(table['verb'][bad])}; expected probabilities of the first form "
                "(divide percentages by 100, put ratings onto 0 to 1)"
            )
        if column.startswith("bias") and np.ptp(values) == 0:
            raise ValueError(f"slope undefined: {column} is {values[0]} for all {len(table)} verbs; it must vary")


def _list(verbs: Any) -> str:
    return ", ".join(map(str, verbs))
