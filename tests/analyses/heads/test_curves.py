"""Several heads together: closed forms of what they do, and random sets."""

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.heads.curves import curve_table, random_set_table
from mechicl.analyses.heads.effects import all_heads
from mechicl.analyses.heads.selection import select_heads


def table_of(parts):
    return select_heads(parts.sweeper, parts.question, parts.select, parts.confirm, 4)[0]


def test_heads_that_add_up_give_sums(study, truth) -> None:
    """Interchange at the target: what heads write adds up, so both curves are sums of single effects."""
    parts = study("decoys", "priming", "interchange", True)
    heads = table_of(parts)
    curves = curve_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads)
    every = all_heads(parts.sweeper.wrapped)
    order = [every[i] for i in heads["effect"].abs().sort_values(ascending=False, kind="stable").index]
    change = truth(parts, "PD", parts.confirm, None) - truth(parts, "DO", parts.confirm, None)
    clean = (parts.planted.expected_L("PD") - parts.planted.expected_L("DO"))[parts.confirm.numbers].mean()
    whole = change.sum((0, 1)).mean()
    assert set(curves["k"]) == {0, 1, 2, 6, 12} and set(curves["kind"]) == {"ablate", "keep"}
    for row in curves.itertuples():
        first = sum(change[head].mean() for head in order[: row.k])
        value = clean + (first if row.kind == "ablate" else whole - first)
        assert row.value == pytest.approx(value, abs=1e-4)
        assert row.faithfulness == pytest.approx((value - clean - whole) / -whole, abs=1e-4)
        assert row.low <= row.value <= row.high and row.share_of_heads == row.k / 12


def test_ends_of_the_curves(localized) -> None:
    """Nothing replaced is the clean model, everything replaced has no faithfulness; one head carries it all."""
    curves = localized("ife", "ife").curves.set_index(["kind", "k"])
    n = curves.reset_index()["k"].max()
    for ends in ([("ablate", 0), ("keep", n), ("keep", 1)], [("ablate", n), ("keep", 0), ("ablate", 1)]):
        value = {True: (1.0, 1.3), False: (0.0, 0.0)}[ends[0] == ("ablate", 0)]
        for end in ends:
            assert curves.loc[end, "faithfulness"] == pytest.approx(value[0], abs=1e-4)
            assert curves.loc[end, "value"] == pytest.approx(value[1], abs=1e-4)


def test_a_backup_does_not_add_up(planted, study) -> None:
    """Without the IFE head the backup comes in; without both the effect is gone."""
    parts = study("decoys", "ife", "zero")
    (first,), (backup,) = planted("decoys").heads["ife"], planted("decoys").heads["backup"]
    every = all_heads(parts.sweeper.wrapped)
    heads = table_of(parts)
    rank = {first: 3.0, backup: 2.0}
    heads["effect"] = [rank.get(head, 1.0 - i / 100) for i, head in enumerate(every)]  # so that these two go first
    curves = curve_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads)
    values = curves[curves["kind"] == "ablate"].set_index("k")["value"]
    np.testing.assert_allclose(values.loc[[0, 1, 2]], [1.3, 1.3, 0], atol=1e-4)


def test_random_sets(study, truth) -> None:
    parts = study("decoys", "priming", "interchange", True)
    heads, every = table_of(parts), all_heads(parts.sweeper.wrapped)
    confirmed = [parts.planted.heads["ife"][0], parts.planted.heads["priming"][0]]
    table = random_set_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads, confirmed, 10)
    counts = table.groupby(["matched", "exact"]).size()
    assert counts.to_dict() == {
        ("confirmed", True): 1, ("layer", True): 5, ("norm", True): 5, ("layer", False): 1_000, ("norm", False): 1_000
    }  # fmt: skip
    change = truth(parts, "PD", parts.confirm, None) - truth(parts, "DO", parts.confirm, None)
    assert table["effect"].iloc[0] == pytest.approx(sum(change[head].mean() for head in confirmed), abs=1e-4)
    # matched by layer: one head of each confirmed head's layer, neither of them confirmed
    rest = [head for head in every if head not in confirmed]
    single = dict(zip(every, heads["effect"], strict=True))
    same_layers = {
        round(single[a] + single[b], 9)
        for a in rest
        for b in rest
        if a != b and sorted((a[0], b[0])) == sorted(head[0] for head in confirmed)
    }
    layer = table[(table["matched"] == "layer") & ~table["exact"]]
    assert set(layer["effect"].round(9)) <= same_layers and layer["effect"].nunique() > 5
    exact = {round(change[a].mean() + change[b].mean(), 4) for a in rest for b in rest if a < b}
    for value in table.loc[table["exact"], "effect"].iloc[1:]:
        assert min(abs(value - known) for known in exact) < 1e-3


def test_random_sets_of_heads_of_like_norms(study) -> None:
    """With ten nearest among ten that are left, any; the seed decides."""
    parts = study("decoys", "priming", "interchange", True)
    heads = table_of(parts)
    made = [
        random_set_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads, [(1, 1), (2, 2)], 2)
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(made[0], made[1])
    assert made[0].loc[made[0]["matched"] == "norm", "effect"].nunique() > 10


def test_no_set_where_none_was_confirmed_or_asked_for(study) -> None:
    parts = study("decoys", "priming", "interchange", True)
    heads = table_of(parts)
    for confirmed, n in (([], 10), ([(1, 1)], 0)):
        found = random_set_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads, confirmed, n)
        assert found.empty and list(found.columns) == ["matched", "exact", "effect"]
