"""A CircuitsVis page: one script, data that survives, nothing that a token could break."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from circuitsvis.tokens import colored_tokens

from mechicl.views.circuits_page import (
    CircuitsFigure,
    attention_figure,
    circuits_html,
    save_circuits,
    token_scores_figure,
)

TOKENS = ["<s>", "A", " doctor", "</script><b>", "<!--", " gave"]
LIBRARY_START = "var CircuitsVis=(()=>"


def pattern(heads: int = 3) -> np.ndarray:
    rows = np.tril(np.random.default_rng(0).random((heads, len(TOKENS), len(TOKENS))))
    return rows / rows.sum(-1, keepdims=True)


def calls(page: str) -> list[tuple[str, str, dict]]:
    found = re.findall(r'<script>CircuitsVis\.render\("([^"]+)", CircuitsVis\.(\w+), (\{.*?\})\);</script>', page)
    return [(name, element, json.loads(data)) for name, element, data in found]


class Scripts(HTMLParser):
    """Reads a page as a browser does: a script ends at the first closing tag, whatever stands before it."""

    def __init__(self, page):
        super().__init__()
        self.inside, self.scripts, self.ids, self.tags, self.sources = False, [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "script"
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def test_one_copy_of_the_library_and_every_figure_intact():
    weights, scores = pattern(), np.linspace(-1, 1, len(TOKENS))
    figures = [
        attention_figure(TOKENS, weights, caption="three <heads>"),
        attention_figure(TOKENS, torch.tensor(weights[0])),
        token_scores_figure(TOKENS, scores),
    ]
    page = circuits_html(figures)
    assert page.count(LIBRARY_START) == 1
    read = Scripts(page)
    assert len(read.scripts) == 1 + len(figures), "a token closed or opened a script"
    assert read.sources == [], "the page must not ask for anything outside itself"
    assert "b" not in read.tags and "three &lt;heads&gt;" in page
    heads, single, coloured = calls(page)
    assert [heads[1], single[1], coloured[1]] == ["AttentionHeads", "AttentionPattern", "ColoredTokens"]
    assert set(read.ids) == {heads[0], single[0], coloured[0]}
    np.testing.assert_array_equal(heads[2]["attention"], weights)
    np.testing.assert_array_equal(single[2]["attention"], weights[0])
    assert heads[2]["tokens"] == TOKENS
    np.testing.assert_array_equal(coloured[2]["values"], scores)
    # CircuitsVis inserts these tokens as HTML, so that "<s>" would vanish and "<b>" act.
    assert coloured[2]["tokens"][0] == "&lt;s&gt;" and not any("<" in t for t in coloured[2]["tokens"])


def test_the_same_figures_give_the_same_page(tmp_path):
    def figures():
        return [attention_figure(TOKENS, pattern())]

    path = save_circuits(figures(), tmp_path / "deep" / "page.html")
    assert path.read_text(encoding="utf-8") == circuits_html(figures())


def test_figures_from_circuitsvis_itself_and_numpy_scalars():
    foreign = colored_tokens(tokens=["a", "<i>"], values=[1.0, 2.0])
    ((_, element, data),) = calls(circuits_html([foreign]))
    assert element == "ColoredTokens" and data["tokens"] == ["a", "&lt;i&gt;"]
    numpy = CircuitsFigure("ColoredTokens", {"tokens": ["a"], "values": [np.float32(0.5)], "minValue": np.int64(0)})
    ((_, _, data),) = calls(circuits_html([numpy]))
    assert data["values"] == [0.5] and data["minValue"] == 0
    with pytest.raises(ValueError, match="Got a str"):
        circuits_html(["<div></div>"])


def test_a_notebook_may_show_one_figure_twice():
    figure = token_scores_figure(["a", "b"], np.array([0.0, 1.0]))
    assert set(Scripts(figure._repr_html_()).ids).isdisjoint(Scripts(figure._repr_html_()).ids)


def test_figures_save_themselves(tmp_path):
    path = token_scores_figure(["a"], np.array([0.5])).save_html(tmp_path / "one.html", title="R&D")
    assert "<title>R&amp;D</title>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attention_figure(TOKENS, pattern(17)), "17 heads.*at most 16"),
        (lambda: attention_figure(TOKENS[:2], pattern()), "2 tokens"),
        (lambda: attention_figure(TOKENS, pattern(), head_names=["one"]), "1 head names for 3"),
        (lambda: attention_figure(TOKENS, np.full((6, 6), np.nan)), "36 values"),
        (lambda: token_scores_figure(TOKENS, np.zeros(2)), "6 tokens and 2 values"),
        (lambda: circuits_html([]), "no figures"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
