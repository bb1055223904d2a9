"""What replacing heads does to an effect: equal to closed forms, and to fitting anew after the patch."""

import numpy as np
import pytest

from mechicl.analyses.heads.selection import confirm_heads, select_heads

EXACT = 1e-5


@pytest.mark.parametrize(
    ("effect", "ablation"), [("priming", "interchange"), ("ife", "mean"), ("ife", "zero"), ("ife_PD", "interchange")]
)
@pytest.mark.parametrize("scale", ["nats", "probability"])
def test_item_and_head_effects_equal_the_closed_form(effect, ablation, scale, study, truth) -> None:
    parts = study("decoys", effect, ablation, True, scale)
    question, rows = parts.question, parts.select
    contexts = list(question.functional.contexts)
    table, _ = select_heads(parts.sweeper, question, rows, parts.confirm, 3)
    heads = list(zip(table["layer"], table["head"], strict=True))
    found = parts.sweeper.effects(rows, parts.confirm, [[head] for head in heads], contexts)
    u = 0.0
    for context, coefficient in question.functional.contexts.items():
        clean = parts.planted.expected_L(context)[rows.numbers]
        change = np.array([truth(parts, context, rows, parts.confirm)[head] for head in heads])
        np.testing.assert_allclose(found.patched[context] - found.clean[context], change, atol=EXACT)
        shares = [1 / (1 + np.exp(-value)) for value in (clean + change, clean)]
        u = u + coefficient * (change if scale == "nats" else shares[0] - shares[1])
    np.testing.assert_allclose(table["effect"], question.total(u, rows), atol=5 * EXACT)
    assert np.abs(table["effect"]).max() > 0.02


def test_effects_in_numbers(planted, localized) -> None:
    """Interchange takes twice the structure; means over other verbs take the slope and nothing else."""
    made = planted("decoys")
    priming, ife = localized("decoys", "priming"), localized("decoys", "ife")
    wanted = made.effects("interchange").set_index(["layer", "head"])["M"]
    for (layer, head), effect in wanted.items():
        for column in ("effect", "d_priming"):
            assert priming.grid(column)[layer, head] == pytest.approx(effect, abs=EXACT)
        if (layer, head) in priming.confirmed:
            assert priming.grid("confirm_effect")[layer, head] == pytest.approx(effect, abs=EXACT)
    (first,) = made.heads["ife"]
    for column in ("effect", "confirm_effect"):
        assert ife.grid(column)[first] == pytest.approx(-1.3, abs=5 * EXACT)
    assert ife.grid("share")[first] == pytest.approx(1, abs=1e-4)
    assert ife.grid("d_priming")[first] == pytest.approx(0, abs=0.3)  # the halves' verbs differ in their mean bias
    others = np.delete(ife.grid("effect").ravel(), first[0] * 4 + first[1])
    np.testing.assert_array_equal(others, 0)
    gates = [m.gate["estimate"].iloc[0] for m in (priming, ife)]
    np.testing.assert_allclose(gates, [made.truth.M, made.truth.common_shift_from_neutral], atol=5 * EXACT)


def refitted_slope(u, rows, bias) -> float:
    """Least squares for u = a(verb) + b(target), then of a on the bias; nothing of the library is used."""
    verbs, verb = np.unique(rows.prime_verb, return_inverse=True)
    targets, target = np.unique(rows.target, return_inverse=True)
    design = np.hstack([np.eye(len(verbs))[verb], np.eye(len(targets))[target]])
    terms = np.linalg.lstsq(design, u, rcond=None)[0][: len(verbs)]
    return float(np.polyfit(bias[verbs].to_numpy(), terms, 1)[0])


@pytest.mark.parametrize("scale", ["nats", "probability"])
def test_the_effect_on_a_slope_is_that_of_refitting_after_the_patch(scale, study) -> None:
    parts = study("decoys", "ife", "mean", True, scale)
    question, rows = parts.question, parts.select
    table, _ = select_heads(parts.sweeper, question, rows, parts.confirm, 3)
    heads = list(zip(table["layer"], table["head"], strict=True))
    found = parts.sweeper.effects(rows, parts.confirm, [[head] for head in heads], ["PD", "DO", "neutral"])
    clean = refitted_slope(question.outcome(found.clean), rows, parts.bias)
    after = [refitted_slope(u, rows, parts.bias) for u in question.outcome(found.patched)]
    np.testing.assert_allclose(table["effect"], np.array(after) - clean, atol=1e-9)
    assert table["effect"].abs().max() > 0.1


def test_the_conditional_change_is_that_of_the_slope_over_priming(study, truth) -> None:
    parts = study("decoys", "ife", "zero", True)
    question, rows = parts.question, parts.select
    table, _ = select_heads(parts.sweeper, question, rows, parts.confirm, 3)
    clean = {context: parts.planted.expected_L(context)[rows.numbers] for context in ("PD", "DO", "neutral")}
    changes = {context: truth(parts, context, rows, parts.confirm) for context in clean}

    def ratio(log_odds):
        return question.total(question.outcome(log_odds), rows) / (log_odds["PD"] - log_odds["DO"]).mean()

    for row in table.itertuples():
        after = {context: values + changes[context][row.layer, row.head] for context, values in clean.items()}
        assert row.conditional == pytest.approx(ratio(after) / ratio(clean) - 1, abs=1e-3)
        assert row.d_priming == pytest.approx((changes["PD"] - changes["DO"])[row.layer, row.head].mean(), abs=EXACT)
    assert table["conditional"].abs().max() > 0.1


def test_a_head_that_takes_the_whole_slope_has_a_conditional_change_of_minus_one(planted, localized) -> None:
    assert localized("decoys", "ife").grid("conditional")[planted("decoys").heads["ife"][0]] == pytest.approx(-1)
    assert localized("decoys", "priming").heads["conditional"].isna().all()


def test_selection_and_confirmation_are_one_computation_on_two_halves(study) -> None:
    parts = study("decoys", "priming", "interchange", True)
    table, chosen = select_heads(parts.sweeper, parts.question, parts.select, parts.confirm, 4)
    order = table["effect"].abs().sort_values(ascending=False)
    heads = list(zip(table["layer"], table["head"], strict=True))
    assert chosen == [heads[i] for i in order.index[:4]] and table["candidate"].sum() == 4
    table, found = confirm_heads(parts.sweeper, parts.question, parts.confirm, parts.select, table, chosen)
    turned, _ = select_heads(parts.sweeper, parts.question, parts.confirm, parts.select, 4)
    for mine, theirs in (("confirm_effect", "effect"), ("confirm_low", "low"), ("confirm_high", "high")):
        np.testing.assert_allclose(table.loc[table["candidate"], mine], turned.loc[table["candidate"], theirs])
    assert (table.loc[table["candidate"], "confirm_p"] <= turned.loc[table["candidate"], "p_fwe"] + 1e-12).all()
    same = np.sign(table["effect"]) == np.sign(table["confirm_effect"])
    np.testing.assert_array_equal(table["confirmed"], same & (table["confirm_p"] <= 0.05))
    assert found.heads == [head for head in chosen if table.set_index(["layer", "head"]).loc[head, "confirmed"]]
