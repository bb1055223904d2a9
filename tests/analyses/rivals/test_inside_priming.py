"""Mechanistic rows of priming: planted heads carry all of their effect; numbers are those of the results taken."""

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.implicit_gradient import ImplicitGradient, measure_implicit_gradient
from mechicl.analyses.rivals.inside_priming import COLUMNS, mechanisms_beside, priming_mechanisms
from mechicl.organisms.shipped import load_organism
from mechicl.tasks.speaker_pairs import speaker_corpus

made_up_head_map = runpy.run_path(str(Path(__file__).parents[1] / "made_up.py"))["made_up_head_map"]
QUICK: dict[str, Any] = {"n_boot": 100, "progress": False}
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # few verbs: BCa may be undefined
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def implicit() -> ImplicitGradient:
    verbs = sorted(speaker_corpus(targets_per_verb=1).verbs)[::4]
    corpus = speaker_corpus(targets_per_verb=2, verbs=verbs, seed=1)
    return measure_implicit_gradient(
        load_organism("delta-small"), corpus, learning_rate=0.01, n_pairs=30, n_prompts=4, seed=2, **QUICK
    )


def test_rows_of_steps_and_errors_are_those_of_the_results(implicit: ImplicitGradient) -> None:
    found = priming_mechanisms(implicit)
    assert list(found.columns) == COLUMNS and set(found["account"]) == {"gradient step", "delta rule"}
    matches = implicit.match.matches
    for level in ("beyond verb and target", "between verbs"):
        for form in ("PD", "DO"):
            row = matches[(matches["level"] == level) & (matches["form"] == form)].iloc[0]
            own: Any = found[found["measure"] == f"r with a real gradient step, {level}, {form} primes"].iloc[0]
            columns = ["estimate", "low", "high", "control"]
            np.testing.assert_array_equal(own[columns].to_list(), row[["r", "low", "high", "chance"]].to_list())
    growth = found[found["account"] == "delta rule"].set_index("measure")
    slope = implicit.errors.slope("icl")
    own = growth.loc["growth of the effect in context a nat of the prime's error"]
    assert own["estimate"] == slope["estimate"] > 0.1 and own["low"] == slope["low"] > 0
    assert own["control"] == implicit.errors.slope("icl", "after neutral primes")["estimate"]
    assert abs(own["control"]) < 0.05  # neutral primes show no form, whatever their verb
    size = implicit.errors.slope("attention")
    own = growth.loc["growth of the size of attention's update a nat of the prime's error"]
    assert own["estimate"] == pytest.approx(size["estimate"] / size["mean"])


@pytest.mark.parametrize(
    ("kind", "effect", "account"), [("priming", "priming", "constant boost"), ("ife", "ife", "delta rule")]
)
def test_planted_heads_carry_all_of_their_effect(
    localized: Callable[..., HeadMap], kind: str, effect: str, account: str
) -> None:
    head_map = localized(kind, effect)
    (row,) = priming_mechanisms(heads=[head_map]).to_dict("records")
    assert row["account"] == account and len(head_map.confirmed) == 1
    assert row["estimate"] == pytest.approx(1, abs=1e-3) and abs(row["control"]) < 1e-3
    assert row["low"] - 1e-9 <= row["estimate"] <= row["high"] + 1e-9 and row["low"] > 0.9
    assert row["note"].startswith("L{}H{}; 1.00 patched together".format(*head_map.confirmed[0]))


def test_shares_are_sums_of_single_heads(localized: Callable[..., HeadMap]) -> None:
    head_map = localized("priming", "priming")
    items = head_map.confirmed_effects
    halves = [items.assign(name=name, d_effect=part * items["d_effect"]) for name, part in (("A", 0.5), ("B", 0.2))]
    two = replace(head_map, confirmed_effects=pd.concat(halves, ignore_index=True))
    whole, part = (priming_mechanisms(heads=[own])["estimate"][0] for own in (head_map, two))
    assert part == pytest.approx(0.7 * whole)


def test_where_nothing_is_found_the_note_says_so() -> None:
    maps = [made_up_head_map("none"), made_up_head_map("gated", effect="ife"), made_up_head_map("confirmed")]
    found = priming_mechanisms(heads=maps)
    assert found["note"].tolist()[:2] == ["no head was confirmed", "no ife to localise"]
    assert found["account"].tolist() == ["constant boost", "delta rule", "constant boost"]
    assert found["estimate"].isna().tolist() == [True, True, False]
    assert abs(found["control"][2]) < 0.1 < found["low"][2] < found["estimate"][2] < found["high"][2]


def test_only_results_that_speak_of_priming_are_taken(
    implicit: ImplicitGradient, localized: Callable[..., HeadMap]
) -> None:
    head_map = localized("ife", "ife")
    found = mechanisms_beside([implicit.match, head_map, implicit])
    assert found.equals(priming_mechanisms(implicit, [head_map]))
    empty = mechanisms_beside([implicit.priming])
    assert empty.empty and list(empty.columns) == COLUMNS
