"""What a report says of heads: true to the head map, plain where nothing was found, still one page for itself."""

import contextlib
import io
import re
import runpy
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.heads.drawings import drawings_of
from mechicl.analyses.heads.report import candidates_table, controls_table, effect_words, head_sections
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.report import write_report
from mechicl.results import load
from mechicl.tasks.datives import dative_corpus
from mechicl.views.circuits_page import attention_figure
from mechicl.wording import number, percent, with_interval

ABOVE = Path(__file__).parents[1]
made_up_head_map = runpy.run_path(str(ABOVE / "made_up.py"))["made_up_head_map"]
report_tests = runpy.run_path(str(ABOVE / "test_report.py"))
Page, words, scored = (report_tests[name] for name in ("Page", "words", "scored"))


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 30)
        yield


@pytest.fixture
def bare(monkeypatch):
    """No pictures: they take most of the time."""
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])


@pytest.fixture(scope="module")
def measured():
    corpus = dative_corpus(design="factorial", primes_per_verb=2, targets_per_verb=2, verbs=list(report_tests["PAST"]))
    with pytest.MonkeyPatch.context() as patch:
        priming = scored(corpus, patch, effect=1.5, slope=0.6)
    return {"priming": priming, "ife": inverse_frequency_effect(priming, n_boot=200, n_permutations=200)}


@pytest.fixture(scope="module")
def maps():
    return [made_up_head_map(), made_up_head_map(effect="ife")]


@pytest.fixture(scope="module")
def on_page(maps):
    return [maps[0], made_up_head_map("none", effect="ife")]


@pytest.fixture(scope="module")
def page(measured, on_page, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("heads"), **measured, heads=on_page)


def section(*args, **changes):
    return head_sections([made_up_head_map(*args, **changes)])[0]


# Sections


def test_the_answer_tells_heads_that_drive_from_heads_that_work_against():
    found = section()
    assert found.question == "Which heads drive structural priming?" and found.kind == "yes"
    assert found.verdict == "4 of 270 heads"
    assert found.brief.startswith("L12H4, L17H2, L9H7 drive it; L21H5 works against it.")
    gate = made_up_head_map().gate
    reversed_effect = section(gate=gate.assign(estimate=-gate["estimate"], low=-gate["high"], high=-gate["low"]))
    assert reversed_effect.brief.startswith("L21H5 drives it; L12H4, L17H2, L9H7 work against it.")
    drawings = [drawings_of(made_up_head_map(), "x"), drawings_of(made_up_head_map(gate=-gate), "x")]
    assert "Below 0 the head drives" in drawings[0][0].caption and "Above 0 the head drives" in drawings[1][0].caption


def test_a_closed_gate_is_said_and_nothing_is_ranked():
    found = section("gated")
    assert found.kind == "none" and found.verdict == "There is nothing to localise"
    assert found.drawings == [] and found.tables == []
    (only,) = found.paragraphs
    assert "includes zero" in only and "420 pairs (20 prime verbs, 44 targets)" in only


def test_candidates_that_failed_are_shown_as_such():
    found = section("none")
    assert found.kind == "none" and found.verdict == "None was confirmed"
    assert found.brief == "None of the 10 strongest of 270 heads held on other pairs."
    (candidates, _) = found.tables
    assert [row[1] for row in candidates["rows"]] == ["no"] * 10
    names = [drawing.name for drawing in found.drawings]
    assert names == ["heads_priming_map", "heads_priming_curves"]


def test_the_table_of_candidates_holds_the_maps_numbers(maps):
    for head_map in maps:
        table = candidates_table(head_map)
        rows = {row[0]: dict(zip(table["heads"], row, strict=True)) for row in table["rows"]}
        assert [row[1] for row in table["rows"]] == ["yes"] * 4 + ["no"] * 6
        assert [row[0] for row in table["rows"]][:4] == ["L12H4", "L17H2", "L9H7", "L21H5"]
        for _, head in head_map.heads.query("candidate").iterrows():
            shown = rows[head["name"]]
            again = with_interval(head["confirm_effect"], head["confirm_low"], head["confirm_high"])
            assert shown["Confirmation"] == again and shown["Selection"] == number(head["effect"])
            assert shown["Share"] == percent(head["confirm_share"])
            assert ("Effect / priming" in shown) == (head_map.over == "slope")
        assert head_map.unit in table["caption"]


def test_controls_without_an_interval_have_none(maps):
    rows = {row[0]: row for row in controls_table(maps[0])["rows"]}
    assert rows["Overlap with duplicate token"][1] == "0.040"
    assert rows["Shuffled weights"][1:3] == ["0.004 [\N{MINUS SIGN}0.020, 0.030]", "priming"]
    assert not [cell for row in rows.values() for cell in row if "nan" in cell or "n/a" in cell]


def test_information_that_is_not_used_is_named(maps):
    idle = maps[0].heads.loc[maps[0].heads["carries_bias"], "name"].tolist()
    (said,) = [text for text in section().paragraphs if "read off" in text]
    assert len(idle) == 3 and f"3 other heads ({', '.join(idle)})" in said
    assert not [t for t in section(heads=maps[0].heads.assign(carries_bias=False)).paragraphs if "read off" in t]


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ("priming", "structural priming"),
        ("ife", "the inverse frequency effect"),
        ("ife_DO", "the inverse frequency effect on DO primes"),
        ("my own", "“my own”"),
    ],
)
def test_effects_have_words(effect, said):
    assert effect_words(made_up_head_map(effect=effect)) == said


def test_two_maps_of_one_effect_do_not_share_a_name():
    slugs = [found.slug for found in head_sections([made_up_head_map(effect=e) for e in ("ife", "a/b", "ife", "ife")])]
    assert slugs == ["heads_ife", "heads_a_b", "heads_ife_3", "heads_ife_4"]


def test_surviving_paths_take_the_place_of_total_effects(measured, bare, maps, tmp_path):
    rows = [("L9H7", "L12H4", 0.2, 0.1, 0.3, True), ("L12H4", "output", 0.4, 0.3, 0.5, True)]
    rows += [("L9H7", "output", 0.0, -0.1, 0.1, False)]
    paths = pd.DataFrame(rows, columns=["source", "target", "effect", "low", "high", "survives"])
    names = [drawing.name for drawing in drawings_of(maps[0], "x", paths)]
    assert "x_paths" in names and "x_circuit" not in names
    (drawing,) = [drawing for drawing in drawings_of(maps[0], "x", paths) if drawing.name == "x_paths"]
    assert "1 of 3 do not" in drawing.caption
    nothing = [drawing.name for drawing in drawings_of(maps[0], "x", paths.assign(survives=False))]
    assert "x_circuit" in nothing and "x_paths" not in nothing
    write_report(tmp_path, **measured, heads=maps, paths=[paths, None])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "frames" / "heads_priming_paths.csv"), paths)
    assert not (tmp_path / "frames" / "heads_ife_paths.csv").exists()
    with pytest.raises(ValueError, match="1 frames of paths for 2 head maps"):
        head_sections(maps, [paths])


# The page


def test_the_page_holds_all_of_it_and_is_valid(page, on_page):
    read = Page(page.read_text(encoding="utf-8"))
    text = words(page)
    assert "script" not in {tag for tag, _ in read.tags}, "without figures to explore there is no script"
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {"heads_priming", "heads_ife"} <= set(ids)
    assert all(a["href"].removeprefix("#") in ids for a in read.all("a"))
    headings = re.findall(r"<h[23] [^>]*>([^<]*)</h[23]>", page.read_text(encoding="utf-8"))
    assert text.count("Which heads drive structural priming?") == 5, "contents, answers, section, method and caveats"
    assert headings.count("Which heads drive structural priming?") == 3
    assert all(head_map.verdict in text for head_map in on_page)
    n_pictures = 3 + (2 + 4 + 2) + 2  # priming and IFE; map, curves, four heads, attention, circuit; map, curves
    assert len(read.all("img")) == n_pictures == len(list((page.parent / "pictures").glob("*.png")))
    numbers = [int(n) for n in re.findall(r"Figure (\d+)\.", text)]
    assert sorted(numbers) == list(range(1, n_pictures + 1))
    assert [int(n) for n in re.findall(r"Table (\d+)\.", text)] == list(range(1, 9))
    for said in (
        "Not confirmed is not idle",
        "other form of the prime shows",
        "mean over other verbs",
        "total effects",
    ):
        assert said in text
    assert "roles = target, ablation = interchange, localisation = 0, corpus = datives, n_items = 200" in text
    assert "nan" not in text.lower().split() and "{{" not in text


def test_without_heads_the_page_says_nothing_of_them(measured, bare, tmp_path):
    text = words(write_report(tmp_path, **measured))
    assert "Which heads" not in text and "Not confirmed is not idle" not in text and "Heads." not in text


def test_frames_and_results_of_heads_reload(page, on_page):
    for slug, head_map in zip(("heads_priming", "heads_ife"), on_page, strict=True):
        assert load(page.parent / "results" / slug) == head_map
        read = pd.read_csv(page.parent / "frames" / f"{slug}.csv")
        pd.testing.assert_frame_equal(read, head_map.heads, check_dtype=False, check_exact=True)
        assert len(pd.read_csv(page.parent / "frames" / f"{slug}_controls.csv")) == len(head_map.controls)


def test_the_lines_to_reproduce_print_the_verdicts(page, on_page, monkeypatch):
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page.read_text(encoding="utf-8"), re.DOTALL)
    python = next(unescape(block) for block in blocks if "import" in block)
    monkeypatch.chdir(page.parent)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(python, "report", "exec"), {})
    assert out.getvalue().strip().splitlines()[-2:] == [head_map.verdict for head_map in on_page]


def test_a_closed_gate_leaves_no_picture_and_no_frame(measured, bare, tmp_path):
    path = write_report(tmp_path, **measured, heads=[made_up_head_map("gated")])
    text = words(path)
    assert "There is nothing to localise" in text and "so no head was replaced" in text
    assert not list((tmp_path / "frames").glob("heads*"))
    assert load(tmp_path / "results" / "heads_priming") == made_up_head_map("gated")


def test_figures_to_explore_bring_one_script_and_no_address(measured, bare, maps, tmp_path):
    weights = np.tril(np.ones((2, 3, 3))) / np.arange(1, 4)[:, None]
    tokens = ["<s>", "</script><b>", " gave"]
    figures = [attention_figure(tokens, weights, head_names=["L0H1", "L1H0"], caption=form) for form in ("PD", "DO")]
    text = write_report(tmp_path, **measured, heads=maps, attention=figures).read_text(encoding="utf-8")
    assert text.count("var CircuitsVis=(()=>") == 1 and text.count('CircuitsVis.render("attention-') == 2
    without_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    read = Page(without_scripts)
    assert "script" not in {tag for tag, _ in read.tags} and "b" not in {tag for tag, _ in read.tags}
    assert {"attention-0", "attention-1"} <= {attrs.get("id") for _, attrs in read.tags}
    assert not [a for _, a in read.tags for key in ("src", "href") if a.get(key, "#").startswith(("http", "//"))]


def test_names_cannot_inject_markup(measured, bare, tmp_path):
    evil = "<script>alert(1)</script>"
    text = write_report(tmp_path, **measured, heads=[made_up_head_map("none", effect=evil)]).read_text(encoding="utf-8")
    assert evil not in text and "&lt;script&gt;alert(1)" in text


def test_an_older_reports_heads_do_not_stay(measured, bare, maps, tmp_path):
    write_report(tmp_path, **measured, heads=maps)
    write_report(tmp_path, **measured, overwrite=True)
    assert not (tmp_path / "results" / "heads_ife").exists() and not (tmp_path / "frames" / "heads_ife.csv").exists()
