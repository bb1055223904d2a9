"""Pages as a browser shows them: pictures have a size, CircuitsVis draws, nothing fails, nothing is asked of a network.

Runs where a Chromium is installed (chromium, google-chrome, chromium-browser), and is skipped elsewhere.
"""

import json
import re
import runpy
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechicl.analyses.accounts import compare_accounts
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.pages.opening import opening_section
from mechicl.analyses.report import write_report
from mechicl.tasks.datives import dative_corpus
from mechicl.tasks.regression import RegressionTask
from mechicl.views.circuits_page import attention_figure, save_circuits

ROOT = Path(__file__).resolve().parents[1]
ANALYSES = ROOT / "tests" / "analyses"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
TOKENS = ["<s>", "A", " doctor", " gave", " a", " guest", " a", " file", "."]
PHONE, LAPTOP = 375, 1280

# What the page did while it was read: put first, so that it hears of every error.
LISTEN = """<script>
window.failures = [];
for (const kind of ["error", "unhandledrejection"])
  addEventListener(kind, e => failures.push(String(e.message || e.reason || (e.target && e.target.outerHTML))), true);
console.error = (...words) => failures.push("error: " + words.map(String).join(" "));
</script>"""
# Then what there is to see, in a frame as wide as the screen that is asked for.
LOOK = """<!DOCTYPE html><body style="margin: 0">
<iframe style="border: 0; width: WIDTHpx; height: 800px" src="PAGE"></iframe>
<pre id="seen"></pre><script>
const frame = document.querySelector("iframe");
const pause = ms => new Promise(done => setTimeout(done, ms));
// Each link of the contents: can the keyboard reach it, does following it lead there, how far below the top?
const follow = async (page, link) => {
  link.focus();
  const reached = page.activeElement === link && link.tabIndex === 0;
  link.click();
  await pause(20);
  const target = page.querySelector(link.hash), view = frame.contentWindow;
  const left = page.documentElement.scrollHeight - view.innerHeight - view.scrollY;
  return [link.hash, reached, view.location.hash, target.getBoundingClientRect().top, left];
};
frame.onload = () => setTimeout(async () => {
  const page = frame.contentDocument, size = e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height];
  const shades = c => new Set(c.getContext("2d").getImageData(0, 0, c.width, c.height).data).size;
  const followed = [];
  for (const link of page.querySelectorAll("nav a, .up a")) followed.push(await follow(page, link));
  document.querySelector("#seen").textContent = JSON.stringify({
    followed,
    failures: frame.contentWindow.failures,
    pictures: [...page.images].map(i => [i.complete && i.naturalWidth, ...size(i)]),
    canvases: [...page.querySelectorAll("canvas")].map(c => [...size(c), c.width && c.height ? shades(c) : 0]),
    text: page.body.innerText,
    width: page.documentElement.scrollWidth,
    asked: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:") && !name.startsWith("blob:")),
  });
}, 1500);
</script></body>"""


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a page's text and a width in pixels to what a browser shows of it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000",
    ]
    options += [f"--window-size={LAPTOP},900", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]

    def seen(text: str, width: int = LAPTOP) -> dict[str, Any]:
        (folder / "page.html").write_text(text.replace("<head>", f"<head>{LISTEN}", 1), encoding="utf-8")
        (folder / "look.html").write_text(LOOK.replace("WIDTH", str(width)).replace("PAGE", "page.html"))
        run = [browser, *options, (folder / "look.html").as_uri()]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=300)
        found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
        assert found, f"the browser showed nothing: {done.stderr[-1000:]}"
        return json.loads(unescape(found[1]))

    return seen


def attention(caption: str = "PD prime, PD target") -> Any:
    rng = np.random.default_rng(0)
    weights = np.tril(rng.random((3, len(TOKENS), len(TOKENS))) ** 3)
    return attention_figure(
        TOKENS, weights / weights.sum(-1, keepdims=True), head_names=["L1H2", "L9H7", "L12H4"], caption=caption
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with an answer at the top, two head maps and attention to explore."""
    helpers = runpy.run_path(str(ANALYSES / "test_report.py"))
    head_map = runpy.run_path(str(ANALYSES / "made_up.py"))["made_up_head_map"]
    corpus = dative_corpus(design="factorial", primes_per_verb=2, targets_per_verb=2, verbs=list(helpers["PAST"]))
    with pytest.MonkeyPatch.context() as patch:
        priming = helpers["scored"](corpus, patch, effect=1.5, slope=0.6)
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 40)
        task = RegressionTask(dim=2, n_demos=4)
        table = compare_accounts(lambda x, y, query: y.mean(-1), task, n_contexts=40, n_orders=2, n_boot=200)
        page = write_report(
            tmp_path_factory.mktemp("report"),
            opening=opening_section("toy", [table], []),
            priming=priming,
            ife=inverse_frequency_effect(priming, n_boot=200, n_permutations=200),
            heads=[head_map(effect="ife"), head_map("gated")],
            attention=[attention(), attention("DO prime, PD target")],
        )
    return page.read_text(encoding="utf-8")


def test_failures_are_noticed(look: Any) -> None:
    """The other tests rest on this one: a page with every mistake that they look for."""
    broken = """<!DOCTYPE html><html><head></head><body><img src="data:image/png;base64,xx"><img src="http://gone.invalid/x.png">
    <canvas width="10" height="10"></canvas><div style="width: 3000px">wide</div>
    <script>console.error("said so"); throw new Error("thrown")</script></body></html>"""
    seen = look(broken, PHONE)
    assert any("thrown" in words for words in seen["failures"]) and "error: said so" in seen["failures"]
    assert [natural for natural, *_ in seen["pictures"]] == [0, 0]
    assert seen["canvases"][0][2] == 1, "a blank canvas has one shade"
    assert seen["width"] >= 3000 and any(name.endswith("gone.invalid/x.png") for name in seen["asked"])


@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_the_report_shows_all_its_pictures_and_attention(look: Any, report: str, width: int) -> None:
    seen = look(report, width)
    assert seen["failures"] == [] and seen["asked"] == []
    assert len(seen["pictures"]) == report.count("<img") == 12
    assert all(natural > 100 and across > 150 and down > 100 for natural, across, down in seen["pictures"])
    assert seen["width"] <= width, "nothing but tables may need scrolling sideways"
    assert_attention_drawn(seen, figures=2)
    assert "There is nothing to localise" in seen["text"]


@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_contents_lead_everywhere_by_click_and_key(look: Any, report: str, width: int) -> None:
    followed = look(report, width)["followed"]
    ids = [link for link, *_ in followed if link != "#contents"]
    headings = re.findall(r'<h2 id="([^"]+)"', report)
    assert ids == [f"#{name}" for name in ("answer", *headings)] and len(ids) == 12, "all chapters, in order"
    assert [link for link, *_ in followed].count("#contents") == 10, "and back from each"
    for link, reached, here, top, left in followed:
        assert reached and here == link
        assert abs(top) < 40 or left < 2 or link == "#contents", (link, top, left)


def test_a_page_of_attention_alone_draws_it(look: Any, tmp_path: Path) -> None:
    page = save_circuits([attention()], tmp_path / "heads.html", title="Heads").read_text(encoding="utf-8")
    seen = look(page)
    assert seen["failures"] == [] and seen["asked"] == []
    assert_attention_drawn(seen, figures=1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_its_pictures(look: Any, path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    drawn = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    seen = look(as_html(notebook))
    assert seen["failures"] == [] and seen["asked"] == []
    assert len(seen["pictures"]) == len(drawn) > 0
    assert all(natural > 100 and across > 100 and down > 50 for natural, across, down in seen["pictures"])


def test_attention_draws_in_a_notebook_even_shown_twice(look: Any) -> None:
    nbformat = pytest.importorskip("nbformat")
    figure = attention()
    cells = []
    for _ in range(2):
        cell = nbformat.v4.new_code_cell("show_heads(model, found, corpus)")
        data = {"text/html": figure._repr_html_(), "text/plain": repr(figure)}
        cell["outputs"] = [nbformat.v4.new_output("execute_result", data=data)]
        cells.append(cell)
    seen = look(as_html(nbformat.v4.new_notebook(cells=cells)))
    assert seen["failures"] == [] and seen["asked"] == []
    assert_attention_drawn(seen, figures=2)


def assert_attention_drawn(seen: dict[str, Any], *, figures: int) -> None:
    """Each figure has a thumbnail a head and one large pattern, none of them blank."""
    assert seen["text"].count("Head Selector") == figures
    assert len(seen["canvases"]) == figures * (3 + 1)
    assert all(across > 20 and down > 20 and shades > 20 for across, down, shades in seen["canvases"])


def as_html(notebook: Any) -> str:
    """A notebook as nbconvert renders it, without the style sheets and scripts that it takes from a network."""
    nbconvert = pytest.importorskip("nbconvert")
    body, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(notebook)
    return f"<!DOCTYPE html><html><head><meta charset='utf-8'></head><body>{body}</body></html>"
