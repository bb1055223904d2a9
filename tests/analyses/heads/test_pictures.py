"""From head maps to pictures: the numbers that are drawn, what is refused, and attention as the model gives it."""

import runpy
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PolyCollection, QuadMesh

from mechicl.analyses.heads.drawings import drawings_of
from mechicl.analyses.heads.pictures import (
    attention_queries,
    confirmed_rows,
    draw_attention,
    draw_circuit,
    draw_curves,
    draw_map,
    draw_scatter,
    faithfulness_curves,
    has_curves,
)
from mechicl.analyses.heads.viewer import example_attention, show_heads, typical_item
from mechicl.tasks import dative_corpus, tokenize
from mechicl.views.circuits_page import save_circuits

made_up_head_map = runpy.run_path(str(Path(__file__).parents[1] / "made_up.py"))["made_up_head_map"]
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def found():
    return made_up_head_map()


@pytest.fixture(scope="module")
def slope_map():
    return made_up_head_map(effect="ife")


def words_of(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend_of(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_map_has_every_head_and_names_those_confirmed(found):
    ax = draw_map(found)
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), found.heads["effect"])
    marks = {tuple(point) for line in ax.lines for point in line.get_xydata()}
    assert marks == {(head, layer) for layer, head in found.confirmed} and len(marks) == 4
    assert len(words_of(ax)) == 4


def test_the_map_marks_nothing_where_nothing_was_confirmed():
    ax = draw_map(made_up_head_map("none"))
    assert words_of(ax) == [] and not [line for line in ax.lines if len(line.get_xydata())]


@pytest.mark.parametrize("sign", [1, -1])
def test_faithfulness_has_intervals_on_its_own_scale(found, sign):
    """Against the definition: (F - F with all replaced) / (F clean - F with all replaced)."""
    curves = found.curves.copy()
    curves[["value", "low", "high"]] *= sign  # an effect below 0: the interval of F turns over
    if sign < 0:
        curves[["low", "high"]] = curves[["high", "low"]].to_numpy()
    drawn = faithfulness_curves(replace(found, curves=curves))
    kept = found.curves[found.curves["k"] > 0].reset_index(drop=True)
    clean, empty = 1.78, 0.06
    for end in ("low", "high"):
        np.testing.assert_allclose(drawn[end], (kept[end] - empty) / (clean - empty))
    np.testing.assert_allclose(drawn["f"], kept["faithfulness"])
    np.testing.assert_allclose(drawn["k"], kept["k"] / 270)
    assert set(drawn["kind"]) == {"keep only", "cumulative ablation"}


def test_random_sets_stand_where_as_many_heads_as_were_confirmed_stand(found):
    ax = draw_curves(found)
    assert "random heads" in legend_of(ax)
    (bar,) = (c for c in ax.collections if isinstance(c, PolyCollection) and c.get_label() == "random heads")
    x, y = bar.get_paths()[0].vertices.T
    sets = found.random_sets.query("exact and matched != 'confirmed'")["effect"]
    np.testing.assert_allclose([y.min(), y.max()], 1 + np.quantile(sets, [0.025, 0.975]) / (1.78 - 0.06))
    assert x.min() < 4 / 270 < x.max()
    nobody = draw_curves(replace(found, random_sets=found.random_sets.iloc[:0]))
    assert "random heads" not in legend_of(nobody)


def test_curves_without_a_scale_are_not_drawn(found):
    flat = replace(found, curves=found.curves.assign(faithfulness=np.nan))
    assert has_curves(found) and not has_curves(flat)
    with pytest.raises(ValueError, match="without curves"):
        draw_curves(flat)
    assert not [drawing for drawing in drawings_of(flat, "x") if drawing.name == "x_curves"]


def test_behind_a_head_stand_its_items(found, slope_map):
    items = found.confirmed_effects.query("name == 'L17H2'")
    ax = draw_scatter(found, "L17H2")
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["items"], items[["bias", "d_effect"]])
    means = items.groupby("prime_verb")[["bias", "d_effect"]].mean()
    np.testing.assert_allclose(lines["verbs"], means)
    assert set(means.index) <= set(words_of(ax))
    row = slope_map.heads.set_index("name").loc["L12H4"]
    tested = f"slope {MINUS}{abs(row['confirm_effect']):.3f} [{MINUS}{abs(row['confirm_low']):.3f}"
    assert [text for text in legend_of(draw_scatter(slope_map, "L12H4")) if text.startswith(tested)]


def test_what_was_not_confirmed_has_nothing_behind_it(found):
    with pytest.raises(ValueError, match=r"'L0H0'.*L12H4, L17H2, L9H7, L21H5"):
        draw_scatter(found, "L0H0")


def test_attention_is_drawn_from_where_heads_were_replaced(found):
    assert attention_queries(found) == ["last", "prime.verb"]
    assert attention_queries(replace(found, roles=("prime.theme",))) == ["prime.verb", "last"]
    assert attention_queries(replace(found, roles=("last",))) == ["last", "prime.verb"]
    ax = draw_attention(found, "prime.verb")
    keys = [label.get_text() for label in ax.get_xticklabels()]
    assert keys == ["bos", "prime.subject", "prime.verb"], "what comes after the query cannot be seen"
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows[:2] == ["L12H4, PD", "L12H4, DO"] and len(rows) == 8
    table = found.attention.query("query == 'prime.verb'").set_index(["name", "context", "key"])["share"]
    shown = [f"{table[(*row.split(', '), key)]:.2f}" for row in rows for key in keys]
    assert words_of(ax) == shown
    with pytest.raises(ValueError, match="expected one of"):
        draw_attention(found, "target.theme")


def test_the_circuit_shows_what_each_head_adds(found):
    ax = draw_circuit(found)
    effects = {row["name"]: -row["confirm_effect"] for _, row in confirmed_rows(found).iterrows()}
    assert {*effects, "output"} <= set(words_of(ax))
    assert {f"{effect:.2f}".replace("-", MINUS) for effect in effects.values()} <= set(words_of(ax))
    paths = pd.DataFrame({"source": ["L9H7"], "target": ["L12H4"], "effect": [0.33]})
    assert "0.33" in words_of(draw_circuit(found, paths))
    with pytest.raises(ValueError, match="without confirmed heads"):
        draw_circuit(made_up_head_map("none"))


def test_nothing_is_drawn_where_nothing_was_localised():
    gated = made_up_head_map("gated")
    assert drawings_of(gated, "x") == [] and confirmed_rows(gated).empty
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_map(gated)


def test_as_many_heads_behind_as_fit_and_the_rest_is_said(found):
    heads = found.heads.copy()
    extra = heads.index[heads["candidate"] & ~heads["confirmed"]][:2]
    heads.loc[extra, "confirmed"] = True
    items = found.confirmed_effects
    drawings = drawings_of(replace(found, heads=heads, confirmed_effects=items), "x")
    behind = [drawing for drawing in drawings if drawing.half]
    assert len(behind) == 4 and behind[-1].caption.endswith("The other 2 are in the table of items.")


# Attention over one pair


@pytest.fixture(scope="module")
def corpus():
    return dative_corpus(verbs=["give", "send", "show"], targets_per_verb=2, seed=0)


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("gpt2", n_ctx=128)


def small_map(corpus, heads):
    """A map of a model of 2 x 4 heads, with these heads confirmed, over pairs of the corpus."""
    made_up = made_up_head_map()
    table = made_up.heads.query("layer < 2 and head < 4").copy()
    place = list(zip(table["layer"], table["head"], strict=True))
    table["confirmed"] = table["candidate"] = [head in heads for head in place]
    table["confirm_effect"] = np.linspace(-1, -0.1, len(table))
    frame = corpus.to_frame()
    pairs = frame[["prime_verb", "target"]].assign(name="L0H1", bias=0.5, d_effect=np.linspace(-1, 1, len(frame)) ** 3)
    return replace(made_up, heads=table, confirmed_effects=pairs)


def test_attention_is_the_models_own_and_only_of_the_heads_asked_for(model, corpus):
    head_map = small_map(corpus, [(0, 1), (1, 3)])
    hooks_before = sum(len(point.fwd_hooks) for point in model.hook_dict.values())
    figure = show_heads(model, head_map, corpus, 3, prime_form="DO", target_form="PD")
    prompt = tokenize(corpus.prime_target(3, "DO", "PD"), model.tokenizer, prepend_bos=True)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([prompt.tokens]))
    expected = np.stack(
        [cache[f"blocks.{layer}.attn.hook_pattern"][0, head].numpy() for layer, head in ((0, 1), (1, 3))]
    )
    np.testing.assert_allclose(figure.properties["attention"], expected, atol=1e-4)
    assert figure.properties["attentionHeadNames"] == ["L0H1", "L1H3"]
    assert "".join(figure.properties["tokens"]) == f"<s>{prompt.text}" and prompt.text in figure.caption
    assert sum(len(point.fwd_hooks) for point in model.hook_dict.values()) == hooks_before


def test_other_heads_can_be_asked_for_and_too_many_are_cut(model, corpus):
    head_map = small_map(corpus, [(0, 1)])
    every = [(layer, head) for layer in range(2) for head in range(4)]
    figure = show_heads(model, head_map, corpus, heads=every, max_heads=3)
    assert figure.properties["attentionHeadNames"] == ["L0H0", "L0H1", "L0H2"]
    with pytest.raises(ValueError, match=r"\(12, 4\).*2 x 4"):
        show_heads(model, made_up_head_map(), corpus)
    with pytest.raises(ValueError, match="No head was confirmed"):
        show_heads(model, made_up_head_map("none"), corpus)


def test_an_example_is_a_typical_pair_after_either_prime(model, corpus, tmp_path):
    head_map = small_map(corpus, [(1, 0), (0, 1)])
    # d_effect rises with the row, so that the median pair is the middle one
    assert typical_item(head_map, corpus) in {len(corpus) // 2 - 1, len(corpus) // 2}
    figures = example_attention(model, [made_up_head_map("none"), head_map], corpus)
    assert [figure.caption.split(":")[0] for figure in figures] == ["PD prime, PD target", "DO prime, PD target"]
    assert figures[0].properties["attentionHeadNames"] == ["L0H1", "L1H0"], "strongest first"
    page = save_circuits(figures, tmp_path / "heads.html").read_text(encoding="utf-8")
    assert page.count('CircuitsVis.render("circuits') == 2
    assert example_attention(model, [made_up_head_map("none")], corpus) == []
    stranger = replace(head_map, confirmed_effects=head_map.confirmed_effects.assign(target="of another corpus"))
    with pytest.raises(ValueError, match="lacks the pair"):
        typical_item(stranger, corpus)
