"""Functionals: closed forms, names, units, and what is refused."""

import numpy as np
import pytest
from scipy.special import expit

from mechicl.analyses.functionals import Functional, functional_of

FORMS = ("PD", "DO")
L = {"PD": np.array([1.0, 2.0]), "DO": np.array([-1.0, 0.5]), "neutral": np.array([0.25, 0.75])}


@pytest.mark.parametrize(
    ("effect", "neutral", "in_nats"),
    [
        ("priming", True, [2.0, 1.5]),
        ("ife", True, [0.25, -0.5]),
        ("ife", False, [0.0, -1.25]),
        ("ife_PD", True, [-0.75, -1.25]),
        ("ife_DO", True, [1.25, 0.25]),
        ("ife_PD", False, [-1.0, -2.0]),
    ],
)
def test_named_effects(effect, neutral, in_nats) -> None:
    functional = functional_of(effect, FORMS, neutral=neutral)
    assert functional.name == effect
    assert functional.over == ("mean" if effect == "priming" else "slope")
    np.testing.assert_array_equal(functional.combined(L, "nats"), in_nats)
    shares = {context: expit(values) for context, values in L.items()}
    np.testing.assert_allclose(functional.combined(L, "probability"), functional.combined(shares, "nats"), rtol=1e-15)


def test_an_effect_of_equal_contexts_is_nought() -> None:
    same = dict.fromkeys(L, np.array([0.3, -2.0]))
    for effect in ("priming", "ife", "ife_PD", "ife_DO"):
        np.testing.assert_array_equal(functional_of(effect, FORMS, neutral=True).combined(same, "probability"), 0)


def test_sets_of_heads_are_kept_apart() -> None:
    many = {context: np.stack([values, 2 * values]) for context, values in L.items()}
    found = functional_of("priming", FORMS, neutral=True).combined(many, "nats")
    np.testing.assert_array_equal(found, [[2.0, 1.5], [4.0, 3.0]])


def test_names_follow_the_forms_and_units_the_scale() -> None:
    functional = functional_of("ife_long", ("long", "short"), neutral=True)
    assert functional.contexts == {"long": -1.0, "neutral": 1.0}
    assert functional.unit("nats") == "nats per unit of bias"
    assert functional_of("priming", FORMS, neutral=True).unit("probability") == "probability"


def test_a_functional_of_yours_is_kept() -> None:
    own = Functional("boost", {"PD": 1.0, "unprimed": -1.0}, "mean")
    assert functional_of(own, FORMS, neutral=False) is own


@pytest.mark.parametrize(("contexts", "over"), [({}, "mean"), ({"PD": 1.0}, "median")])
def test_what_is_no_functional(contexts, over) -> None:
    with pytest.raises(ValueError, match="expected contexts, and 'mean' or 'slope'"):
        Functional("x", contexts, over)


def test_unknown_effects_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown effect 'ife_XX'; expected one of priming, ife, ife_PD, ife_DO"):
        functional_of("ife_XX", FORMS, neutral=True)


@pytest.mark.parametrize(("context", "neutral"), [("passive", True), ("neutral", False)])
def test_contexts_that_the_corpus_lacks_are_refused(context, neutral) -> None:
    with pytest.raises(ValueError, match=f"context.*{context}.*expected some of PD, DO"):
        functional_of(Functional("x", {"PD": 1.0, context: -1.0}, "mean"), FORMS, neutral=neutral)
