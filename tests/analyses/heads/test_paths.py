"""Paths between heads, against planted models in which it is known who reads whom."""

from dataclasses import replace

import numpy as np
import pytest

from mechicl.analyses.heads.paths import paths_between_heads
from mechicl.analyses.heads.pictures import confirmed_rows, draw_circuit
from mechicl.tasks.corpus import PrimingCorpus

OPTIONS = {"n_items": 16, "n_boot": 100, "progress": False}


def with_confirmed(head_map, heads):
    """The map as if these heads had been confirmed."""
    table = head_map.heads.copy()
    place = list(zip(table["layer"], table["head"], strict=True))
    table["confirmed"] = [head in heads for head in place]
    table["confirm_effect"] = table["confirm_effect"].fillna(0.0)
    return replace(head_map, heads=table)


def name(head):
    return f"L{head[0]}H{head[1]}"


def test_planted_heads_write_straight_into_the_output(planted, localized):
    """The direct effect is all of the effect, 2 k each, and nothing passes from one to the other."""
    made, found = planted("decoys"), localized("decoys", "priming")
    (ife,), (priming,) = made.heads["ife"], made.heads["priming"]
    paths = paths_between_heads(made.model, found, made.corpus, **OPTIONS)
    effects = paths.set_index(["source", "target"])["effect"]
    np.testing.assert_allclose(effects[name(ife), "output"], 2 * 1.3, atol=1e-3)
    np.testing.assert_allclose(effects[name(priming), "output"], 2 * 0.7, atol=1e-3)
    assert set(paths.loc[paths["survives"], "target"]) == {"output"}
    np.testing.assert_allclose(effects[paths.set_index(["source", "target"])["survives"].eq(False)], 0, atol=1e-4)


def test_a_head_that_is_read_by_another_acts_through_it_alone(planted, localized):
    """The carrier takes the verb to the prime's object, where the ife head reads it; nothing else does."""
    made = planted("ife")
    (carrier,), (ife,), spare = made.heads["carrier"], made.heads["ife"], made.heads["spare"][0]
    found = localized("ife", "ife", roles=("prime",))
    assert found.confirmed == [carrier], "at the prime's positions it alone has an effect"
    paths = paths_between_heads(
        made.model, with_confirmed(found, [carrier, ife, spare]), made.corpus, **OPTIONS | {"n_items": 1_000}
    )
    table = paths.set_index(["source", "target"])
    through, direct = table.loc[(name(carrier), name(ife))], table.loc[(name(carrier), "output")]
    whole = -confirmed_rows(found)["confirm_effect"].iloc[0]
    assert through["effect"] == pytest.approx(whole, abs=1e-3) and through["survives"]
    assert abs(direct["effect"]) < 1e-4 and not direct["survives"]
    assert abs(table.loc[(name(carrier), name(spare)), "effect"]) < 1e-4, "who does not read it passes nothing on"
    ax = draw_circuit(with_confirmed(found, [carrier, ife, spare]), paths)
    boxes = {text.get_text() for text in ax.texts}
    assert {name(carrier), name(ife)} <= boxes and name(spare) not in boxes


def test_without_confirmed_heads_there_are_no_paths(planted, localized):
    made = planted("null")
    assert paths_between_heads(made.model, localized("null", "priming"), made.corpus, **OPTIONS).empty


def test_another_corpus_is_refused(planted, localized):
    made, found = planted("decoys"), localized("decoys", "priming")
    verbs = sorted(set(made.corpus.to_frame()["prime_verb"]))[:4]
    smaller: PrimingCorpus = made.corpus.where(f"prime_verb in {verbs}")
    with pytest.raises(ValueError, match="expected the corpus it was made of"):
        paths_between_heads(made.model, found, smaller, **OPTIONS)
