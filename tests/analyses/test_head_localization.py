"""Localisation in models whose mechanism is known: exactly the planted heads."""

import numpy as np
import pytest

from mechicl.analyses.functionals import Functional

EXACT = 1e-5


def names(heads) -> set[str]:
    return {f"L{layer}H{head}" for layer, head in heads}


# Exactly the planted heads


@pytest.mark.parametrize(
    ("kind", "effect", "roles"),
    [
        ("ife", "ife", {"ife"}),
        ("ife", "ife_DO", {"ife"}),
        ("ife", "priming", {"ife"}),  # it writes structure less bias, so it primes
        ("priming", "priming", {"priming"}),
        ("decoys", "ife", {"ife"}),
        ("decoys", "priming", {"ife", "priming"}),
    ],
)
def test_exactly_the_planted_heads_are_confirmed(kind, effect, roles, planted, localized) -> None:
    made, found = planted(kind), localized(kind, effect)
    assert found.gate["passed"].all()
    assert set(found.confirmed) == {made.heads[role][0] for role in roles}
    for head in found.confirmed:
        assert f"L{head[0]}H{head[1]} (" in found.verdict
    assert f"{len(roles)} of {len(found.heads)} heads" in found.verdict


@pytest.mark.parametrize(("kind", "effect"), [("priming", "ife"), ("null", "ife"), ("null", "priming")])
def test_where_there_is_no_effect_there_is_nothing_to_localise(kind, effect, localized) -> None:
    found = localized(kind, effect)
    assert not found.gate["passed"].any() and found.gate["estimate"].abs().max() < EXACT
    assert found.confirmed == [] and found.heads.empty and found.curves.empty
    assert found.verdict.startswith("Nothing to localise: ")


def test_decoys_carry_the_bias_and_are_no_causes(planted, localized) -> None:
    made, found = planted("decoys"), localized("decoys", "ife")
    table = found.heads.set_index("name")
    assert set(table.index[table["carries_bias"]]) == names(made.heads["decoy"])
    for name in names(made.heads["decoy"]):
        assert table.loc[name, "effect"] == 0 and not table.loc[name, "candidate"] and name in found.verdict
        assert table.loc[name, "bias_r2"] > 0.9
    (backup,) = made.heads["backup"]
    assert not table.loc[f"L{backup[0]}H{backup[1]}", "confirmed"]
    (first,) = names(made.heads["ife"])
    assert table.loc[first, "bias_p"] <= 0.05 and not table.loc[first, "carries_bias"]  # confirmed, so no decoy


def test_zero_ablation_hides_the_head_behind_its_backup(planted, localized) -> None:
    found = localized("decoys", "ife", ablation="zero")
    assert found.confirmed == [] and found.gate["passed"].all()
    assert found.grid("effect")[planted("decoys").heads["ife"][0]] == 0
    assert found.verdict.startswith("No head was confirmed as driving the inverse frequency effect")
    assert localized("decoys", "ife", ablation="resample").confirmed == list(planted("decoys").heads["ife"])


def test_interchange_finds_structure_and_no_slope(localized) -> None:
    assert localized("ife", "ife", ablation="interchange").confirmed == []


# Where: the prime's encoding, the last token


@pytest.mark.parametrize(
    ("effect", "kind", "share"),
    # interchange: tokens of the two primes do not match, so that each receives a mean and nothing can be read off it
    [("ife", "ife", -1.3), ("priming", "ife", -1.3), ("priming", "decoys", -2.0)],
)
def test_at_the_prime_the_carrier_is_found(effect, kind, share, planted, localized) -> None:
    found = localized(kind, effect, roles=("prime",))
    assert found.confirmed == list(planted(kind).heads["carrier"]) and found.roles == ("prime",)
    assert found.grid("effect")[found.confirmed[0]] == pytest.approx(share, abs=EXACT)


@pytest.mark.parametrize("effect", ["ife", "priming"])
def test_at_the_verb_of_the_prime_nothing_is_found(effect, localized) -> None:
    found = localized("ife", effect, roles=("prime.verb",))  # the carrier writes one token later
    assert found.confirmed == [] and not found.heads["effect"].any()


@pytest.mark.parametrize("roles", [("last",), ("target.subject", "target.verb")])
def test_where_the_forms_part_is_where_the_head_writes(roles, localized) -> None:
    whole, part = localized("ife", "ife"), localized("ife", "ife", roles=roles)
    assert part.confirmed == whole.confirmed
    np.testing.assert_allclose(part.heads["effect"], whole.heads["effect"], atol=EXACT)


# Other effects, other scales


def test_a_functional_of_yours(planted, localized) -> None:
    """L after PD less L after a neutral prime, of which the priming head writes half of its strength."""
    own = HashableFunctional("boost", {"PD": 1.0, "neutral": -1.0}, "mean")
    found = localized("priming", own)
    assert found.confirmed == list(planted("priming").heads["priming"])
    assert found.grid("effect")[found.confirmed[0]] == pytest.approx(-1.3, abs=EXACT)
    assert (found.effect, found.unit, found.contexts) == ("boost", "nats", {"PD": 1.0, "neutral": -1.0})
    assert found.heads["d_priming"].isna().all()  # only one form was measured
    unprimed = localized("priming", HashableFunctional("lift", {"DO": -1.0, "unprimed": 1.0}, "mean"))
    assert unprimed.confirmed == found.confirmed and unprimed.gate["estimate"].iloc[0] == pytest.approx(0.65, abs=EXACT)


class HashableFunctional(Functional):
    """So that a fixture can remember what it found."""

    def __hash__(self) -> int:
        return hash(self.name)


def test_the_scale_of_probabilities(planted, localized) -> None:
    found = localized("decoys", "ife", scale="probability")
    assert found.unit == "probability per unit of bias"
    assert found.confirmed == list(planted("decoys").heads["ife"])


# Splits, tables


def test_halves_and_what_is_said_of_items(planted, localized) -> None:
    found = localized("decoys", "ife")
    made, frame = planted("decoys"), planted("decoys").corpus.to_frame()
    assert found.verbs["verb"].is_unique and set(found.verbs["split"]) == {"selection", "confirmation"}
    np.testing.assert_allclose(found.verbs["bias"], found.verbs["verb"].map(made.bias), atol=EXACT)
    items = found.confirmed_effects
    confirming = set(found.verbs.loc[found.verbs["split"] == "confirmation", "verb"])
    assert set(items["prime_verb"]) == confirming
    assert len(items.merge(frame, on=["prime_verb", "target"])) == len(items)
    # mean c of the other half's verbs less c of the verb: rises with its bias, one line for all
    slope, _ = np.polyfit(items["bias"], items["d_effect"], 1)
    assert slope == pytest.approx(-1.3, abs=1e-4)
    other = found.verbs.loc[found.verbs["split"] == "selection", "bias"]
    line = -1.3 * (items["bias"] - other.mean())
    assert np.ptp(items["d_effect"] - line) < EXACT and abs((items["d_effect"] - line).iloc[0]) < 0.15


def test_what_the_confirmed_head_looks_at(planted, localized) -> None:
    """The first object: the theme of a PD prime, the recipient of a DO prime, BOS after a neutral one."""
    table = localized("ife", "ife").attention.set_index(["context", "query", "key"])["share"]
    for context, key in (("PD", "prime.theme"), ("DO", "prime.recipient"), ("neutral", "bos")):
        assert table[context, "last", key] == pytest.approx(1, abs=EXACT)
    assert table["PD", "last", "prime.recipient"] == pytest.approx(0, abs=EXACT)
    assert set(localized("ife", "ife").attention["name"]) == names(planted("ife").heads["ife"])
