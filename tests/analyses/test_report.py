"""The report: self-contained and valid, true to its results, sensible for null results, careful with what is there."""

import base64
import contextlib
import hashlib
import io
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses import priming as priming_module
from mechicl.analyses.comparison import compare
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import measure_priming
from mechicl.analyses.report import check_report_folder, write_report
from mechicl.results import load
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus
from mechicl.wording import number

PAST = {"give": "gave", "send": "sent", "show": "showed", "throw": "threw", "find": "found", "make": "made"}
BIAS = dict(zip(PAST.values(), np.linspace(-1.5, 1.5, len(PAST)), strict=True))  # log-odds of PD, by verb
VOID = {"meta", "img", "br", "hr", "link", "input"}


def scored(corpus, monkeypatch, *, effect, slope, salt=""):
    """The priming result of a model whose log-odds are known: the verb's bias without a prime; after one +-effect / 2
    by its form, minus slope x the bias of its verb after DO. The target's verb does not matter after a prime."""

    def score(model, contexts, continuations, **options):
        values = []
        for context, continuation in zip(contexts, continuations, strict=True):
            text = context + continuation
            verb = next(word for word in re.findall(r"\w+", text) if word in BIAS)
            target = text.rsplit(". ", 1)[-1] if text.count(".") > 1 else text
            prime = text[: -len(target)]
            if not prime:
                odds = BIAS[verb]
            elif re.search(r" (to|for) ", prime):
                odds = effect / 2
            else:
                odds = 0.0 if len(prime.split()) == 5 else -effect / 2 - slope * BIAS[verb]
            noise = int(hashlib.sha256((salt + text).encode()).hexdigest()[:8], 16) / 2**32 - 0.5
            values.append((odds if re.search(r" (to|for) ", target) else 0.0) + 0.3 * noise)
        return np.array(values)

    monkeypatch.setattr(priming_module, "score", score)
    monkeypatch.setattr(priming_module, "wrap", lambda model: SimpleNamespace(facts=lambda: {"model": model}))
    return measure_priming("toy", corpus, n_boot=200, progress=False)


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 50)
        yield


@pytest.fixture
def bare(monkeypatch):
    """No pictures: they take most of the time."""
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])


@pytest.fixture(scope="module")
def corpus():
    return dative_corpus(design="factorial", primes_per_verb=2, targets_per_verb=2, verbs=list(PAST))


@pytest.fixture(scope="module")
def strong(corpus):
    with pytest.MonkeyPatch.context() as patch:
        result = scored(corpus, patch, effect=1.5, slope=0.6)
    return result, inverse_frequency_effect(result, n_boot=300, n_permutations=300)


@pytest.fixture(scope="module")
def null(corpus):
    """No effect at all, and no neutral sentences."""
    without = PrimingCorpus(
        corpus.name,
        corpus.forms,
        corpus.sentences.assign(neutral=None),
        corpus.spans[corpus.spans["form"] != "neutral"],
        corpus.pairs.drop(columns="shared_preposition"),
    )
    with pytest.MonkeyPatch.context() as patch:
        result = scored(without, patch, effect=0.0, slope=0.0, salt="2")
    return result, inverse_frequency_effect(result, n_boot=300, n_permutations=300)


@pytest.fixture(scope="module")
def page(strong, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), priming=strong[0], ife=strong[1], command="mechicl report")


class Page(HTMLParser):
    """Tags in order, and a check that each is closed where it belongs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()
        self.text += " " * (tag in {"td", "th", "p", "li", "h1", "h2", "h3", "pre"})

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def words(path):
    """The page's text with single spaces."""
    return re.sub(r"\s+", " ", Page(path.read_text(encoding="utf-8")).text)


def test_page_is_valid_and_asks_nothing_of_the_network(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    read = Page(text)
    assert read.all("html") == [{"lang": "en"}] and len(read.all("h1")) == len(read.all("title")) == 1
    assert {"charset": "utf-8"} in read.all("meta") and any(m.get("name") == "viewport" for m in read.all("meta"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs[key] for _, attrs in read.tags for key in ("src", "href", "srcset") if key in attrs]
    assert all(t.startswith("data:image/png;base64,") or t.removeprefix("#") in ids for t in targets)
    assert "url(" not in text and "@import" not in text
    assert "{{" not in text and "{%" not in text and "nan" not in words(page).lower().split()


def test_pictures_are_those_beside_the_page_and_described(page):
    images = Page(page.read_text(encoding="utf-8")).all("img")
    inside = [base64.b64decode(image["src"].split(",", 1)[1], validate=True) for image in images]
    beside = [p.read_bytes() for p in (page.parent / "pictures").glob("*.png")]
    assert len(inside) == 3 and sorted(inside) == sorted(beside)
    assert all(raw.startswith(b"\x89PNG") for raw in inside)
    assert all(len(image["alt"]) > 20 and int(image["width"]) > 0 for image in images)


def test_answers_state_the_numbers_of_the_results(page, strong):
    priming_result, ife = strong
    text = words(page)
    assert "Does it show structural priming? Yes" in text
    assert ife.evidence == {"PD": "none", "DO": "ife"} and "IFE on DO primes, not on PD primes" in text
    for scale, digits in {"nats": 2, "probability": 3}.items():
        row = priming_result.effects.query(f"contrast == 'PD vs DO' and scale == '{scale}'").iloc[0]
        assert (
            f"{number(row['estimate'], digits)} [{number(row['low'], digits)}, {number(row['high'], digits)}]" in text
        )
    for _, row in ife.estimates.iterrows():
        shown = f"{number(row['estimate'])} [{number(row['low'])}, {number(row['high'])}]"
        assert shown in text, (row["scale"], row["estimand"])
    for verb in ife.verbs["verb"]:
        assert f" {verb} " in text
    for said in ("not identify gradient descent", "sigmoid saturates", "Preposition overlap", "come from one model"):
        assert said in text
    assert "mechicl report" in text and "toy" in text


def test_the_known_effect_is_what_the_page_reports(strong):
    effect = strong[0].effects.query("contrast == 'PD vs DO' and scale == 'nats'").iloc[0]["estimate"]
    slope = strong[1].estimates.query("estimand == 'slope_DO' and scale == 'logit'").iloc[0]["estimate"]
    # Biases are symmetric about zero, so the mean effect is the one put in; noise is at most 0.3 a score.
    assert effect == pytest.approx(1.5, abs=0.1) and slope == pytest.approx(-0.6, abs=0.1)


def test_frames_and_results_reload(page, strong):
    priming_result, ife = strong
    frames = {"items": priming_result.items, "effects": priming_result.effects, "slopes": ife.estimates}
    for name, frame in frames.items():
        read = pd.read_csv(page.parent / "frames" / f"{name}.csv")
        pd.testing.assert_frame_equal(read, frame.reset_index(drop=True), check_dtype=False, check_exact=True)
    assert load(page.parent / "results" / "priming") == priming_result
    assert load(page.parent / "results" / "inverse_frequency") == ife


def test_the_lines_to_reproduce_run_and_give_the_same(page, monkeypatch):
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page.read_text(encoding="utf-8"), re.DOTALL)
    python = next(unescape(block) for block in blocks if "import" in block)
    monkeypatch.chdir(page.parent)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(python, "report", "exec"), {})
    assert out.getvalue().strip().startswith("IFE on DO primes, not on PD primes")
    assert out.getvalue().strip().endswith(" True")


def test_null_results_and_a_missing_baseline_are_said_plainly(null, bare, tmp_path):
    text = words(write_report(tmp_path / "null", priming=null[0], ife=null[1]))
    assert "Does it show structural priming? No clear effect" in text
    assert "Does it show the inverse frequency effect? No IFE" in text
    assert "its interval includes zero" in text and "No neutral prime." in text
    assert "After neutral" not in text and "after a neutral prime" not in text and "nan" not in text.lower().split()
    assert "does not record whether they do" in text


def test_the_slope_that_the_design_brings_along_is_stated(strong, page):
    items, verbs = strong[0].items, strong[1].verbs
    shares = (1 / (1 + np.exp(-items["L_unprimed"]))).groupby(items["prime_verb"]).mean().loc[verbs["verb"]]
    slope = np.polyfit(verbs["bias"], shares, 1)[0]
    # No target has the prime's verb, so a verb of high bias meets targets of lower bias: by 1 / (verbs - 1).
    assert slope == pytest.approx(-1 / (len(PAST) - 1), abs=0.02)
    assert f"a slope of {number(slope)} in probability" in words(page)


def test_reversed_effects_are_not_called_effects(corpus, bare, tmp_path, monkeypatch):
    result = scored(corpus, monkeypatch, effect=-1.5, slope=-0.6)
    ife = inverse_frequency_effect(result, n_boot=300, n_permutations=300)
    text = words(write_report(tmp_path, priming=result, ife=ife))
    assert "structural priming? The reverse" in text
    assert "No IFE; reversed on DO primes" in text


def test_names_cannot_inject_markup(strong, bare, tmp_path):
    evil = "<script>alert('x')</script>&<b>"
    result = replace(strong[0], corpus=evil, provenance=replace(strong[0].provenance, model=evil))
    verbs = strong[1].verbs.assign(verb=[evil, *strong[1].verbs["verb"][1:]])
    path = write_report(tmp_path, priming=result, ife=replace(strong[1], verbs=verbs), command=evil)
    text = path.read_text(encoding="utf-8")
    assert evil not in text and "<script" not in text and "<b>" not in text
    assert text.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&lt;b&gt;") >= 4
    assert words(path).count(evil) >= 4


def test_external_norms_are_named_as_such(strong, bare, tmp_path):
    norms = pd.DataFrame({"verb": list(PAST), "bias": np.linspace(0.1, 0.9, len(PAST))})
    ife = inverse_frequency_effect(strong[0], bias=norms, n_boot=300, n_permutations=300)
    text = words(write_report(tmp_path, priming=strong[0], ife=ife))
    assert "norms that were given from outside" in text and "The bias is not the model's own." in text
    assert "each read without a prime" not in text


def test_a_share_of_one_has_no_logit_scale_and_the_page_copes(strong, tmp_path):
    estimates = strong[1].estimates.query("scale == 'probability'").reset_index(drop=True)
    path = write_report(tmp_path, priming=strong[0], ife=replace(strong[1], estimates=estimates))
    assert "There is no logit scale here" in words(path)
    assert len(Page(path.read_text(encoding="utf-8")).all("img")) == 2


def test_several_models_add_a_table_a_picture_and_their_warnings(strong, null, tmp_path):
    both = compare({"strong model": strong[1], "flat model": null[1]})
    path = write_report(tmp_path, priming=strong[0], ife=strong[1], comparison=both)
    text = words(path)
    assert "Models side by side." in text and "strong model" in text and "flat model" in text
    assert both.warnings and all(warning in text for warning in both.warnings)
    assert len(Page(path.read_text(encoding="utf-8")).all("img")) == 4
    assert load(tmp_path / "results" / "comparison") == both


def test_a_report_is_replaced_only_when_asked_and_then_whole(strong, null, tmp_path):
    (tmp_path / "scores").mkdir()
    both = compare({"a": strong[1], "b": null[1]})
    path = write_report(tmp_path, priming=strong[0], ife=strong[1], comparison=both)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="already holds a report"):
        write_report(tmp_path, priming=null[0], ife=null[1])
    assert path.read_bytes() == before
    write_report(tmp_path, priming=null[0], ife=null[1], overwrite=True)
    assert "No IFE" in words(path)
    assert not (tmp_path / "pictures" / "models.png").exists(), "left over from the replaced report"
    assert load(tmp_path / "results" / "inverse_frequency") == null[1]
    assert (tmp_path / "scores").is_dir(), "what is not the report's stays"


@pytest.mark.parametrize("name", ["index.html", "frames", "results"])
def test_foreign_files_are_never_replaced(strong, tmp_path, name):
    target = tmp_path / name
    target.write_text("mine") if "." in name else target.mkdir()
    with pytest.raises(ValueError, match=f"holds {name} of something else"):
        write_report(tmp_path, priming=strong[0], ife=strong[1], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        check_report_folder(tmp_path / "file", overwrite=True)


def test_a_failure_half_way_leaves_the_old_report(strong, null, bare, tmp_path, monkeypatch):
    path = write_report(tmp_path, priming=strong[0], ife=strong[1])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mechicl.analyses.pages.sections._render", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, priming=null[0], ife=null[1], overwrite=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert path.exists()
