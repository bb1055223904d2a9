"""The kernel account's report: what the results hold is what the page says, on a model whose answers are known."""

import contextlib
import io
import re
import runpy
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.kernel_account import account_prompts, measure_kernel_account
from mechicl.analyses.kernels.report import kernel_section
from mechicl.analyses.kernels.report_words import card
from mechicl.analyses.kernels.viewer import plot_prompt, show_demonstrations, show_kernel_heads
from mechicl.analyses.pages.sections import write_sections
from mechicl.organisms.kernel_model import planted_kernel
from mechicl.results import load
from mechicl.untrained import shuffled_weights
from mechicl.wording import with_interval

Page = runpy.run_path(str(Path(__file__).parents[1] / "test_report.py"))["Page"]
FEW: dict[str, Any] = {"n_boot": 200, "n_permutations": 60, "progress": False, "seed": 1}
N_PROMPTS = 40


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_kernel(seed=0)


@pytest.fixture(scope="module")
def account(planted: Any) -> Any:
    return measure_kernel_account(planted.model, planted.task, n_prompts=N_PROMPTS, n_phenomena=20, **FEW)


@pytest.fixture(scope="module")
def page(account: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 40)
        return write_sections(
            tmp_path_factory.mktemp("report"), [kernel_section(account)], title="A <title>", subtitle="planted",
            command="mechicl kernel --model x",
        )  # fmt: skip


def words(path: Path) -> str:
    return re.sub(r"\s+", " ", Page(path.read_text(encoding="utf-8")).text)


def test_the_page_is_valid_and_asks_nothing_of_the_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    read = Page(text)  # refuses tags that are not closed where they belong
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {"kernel", "method", "caveats", "provenance"} <= set(ids)
    targets = [attrs[key] for _, attrs in read.tags for key in ("src", "href") if key in attrs]
    assert all(t.startswith("data:image/png;base64,") or t.removeprefix("#") in ids for t in targets)
    assert "script" not in {tag for tag, _ in read.tags} and "{{" not in text and "{%" not in text
    assert "A &lt;title&gt;" in text and "nan" not in words(page).lower().split()
    assert len(read.all("img")) == len(list((page.parent / "pictures").glob("*.png"))) >= 10


def test_the_page_says_the_numbers_of_the_account(page: Path, account: Any) -> None:
    text = words(page).replace("\N{NO-BREAK SPACE}", " ")
    for _, row in account.regression.rebuilt.iterrows():
        assert with_interval(row["agreement"], row["low"], row["high"], 2) in text
        assert with_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"], 2) in text
    best = account.regression.heads.nlargest(1, "unique_r2").iloc[0]
    assert f"L{best['layer']}H{best['head']} {best['kernel']}" in text
    for _, row in account.phenomena.frame.query("predictor == 'ICL'").iterrows():
        assert f"{row['condition']} {with_interval(row['accuracy'], row['low'], row['high'], 2)}" in text
    faithful = account.causality.frame.query("condition == 'kernel' and measure == 'faithfulness'")
    for _, row in faithful[faithful["control"] == "none"].iterrows():
        assert with_interval(row["estimate"], row["low"], row["high"], 2) in text
    gains = faithful[faithful["control"] == "nuisance weights"]
    assert len(gains) and all(
        with_interval(row["difference"], row["diff_low"], row["diff_high"], 2) in text for _, row in gains.iterrows()
    )
    assert "Agreement alone is no kernel regression" in text and "mechicl kernel --model x" in text
    assert f"n_prompts = {N_PROMPTS}" in text and "planted-kernel" in text


def test_frames_and_the_account_reload(page: Path, account: Any) -> None:
    for name, frame in kernel_section(account).frames.items():
        read = pd.read_csv(page.parent / "frames" / f"{name}.csv", keep_default_na=True)
        numbers = frame[0].select_dtypes("number")
        pd.testing.assert_frame_equal(read[numbers.columns], numbers.reset_index(drop=True), check_dtype=False)
    assert load(page.parent / "results" / "kernel_account") == account


def test_the_lines_to_reproduce_run(page: Path, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(page.parent)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(unescape(next(b for b in blocks if "import" in b)), "page", "exec"), {})
    assert out.getvalue().strip() == account.verdict


def test_the_planted_kernel_is_found_and_a_shuffled_model_is_not(planted: Any, account: Any) -> None:
    assert card(account) == ("yes", "Like a kernel regression, on all three counts")
    model = shuffled_weights(planted.model, seed=3)
    null = measure_kernel_account(model, planted.task, n_prompts=N_PROMPTS, parts=(), **FEW)
    assert card(null)[0] == "none"
    section = kernel_section(null)
    assert section.kind == "none" and len(section.tables) == 2 and set(section.results) == {"kernel_account"}


def test_each_count_is_needed(account: Any) -> None:
    regression = account.regression
    no_votes = replace(regression, rebuilt=regression.rebuilt.assign(gain_low=-0.1))
    no_kernel = replace(regression, heads=regression.heads.assign(follows_kernel=False))
    neither = replace(no_votes, heads=no_kernel.heads)
    guessing = replace(regression, accuracy=regression.accuracy | {"low": 0.4})
    idle = replace(account.causality, frame=account.causality.frame.assign(diff_low=-0.1))
    frame = account.causality.frame
    by_nuisance = replace(
        idle, frame=frame.assign(diff_low=frame["diff_low"].where(frame["control"] != "nuisance weights", -0.1))
    )
    found = [card(replace(account, regression=changed))[1] for changed in (no_votes, no_kernel, neither, guessing)] + [
        card(replace(account, causality=changed))[1] for changed in (idle, by_nuisance, None)
    ]
    assert found == [
        "Heads follow kernels, but their votes are not its answers",
        "Votes agree with its answers, but no head follows a kernel",
        "No sign of it",
        "Nothing to explain: it is not above chance",
        "Votes and kernels agree, but answers do not follow the kernels",
        "Votes and kernels agree, but answers do not follow the kernels",
        "Like a kernel regression, on both counts",
    ]


def test_figures_hold_the_attention_of_the_last_token(planted: Any, account: Any) -> None:
    prompts = prompts_of(planted)
    (figure,) = show_demonstrations(planted.model, prompts[0], [(1, 0)])
    shares = np.array(figure.properties["values"])
    spans = [prompts[0].prompt.roles[f"demo[{i}].label"] for i in range(8)]
    own = np.array([shares[start:stop].sum() for start, stop in spans])
    weights = account.regression.kernel_weights[0, account.regression.named_heads.index((1, 0))]
    np.testing.assert_allclose(own, weights, atol=1e-3)  # the planted head is its kernel
    assert len(figure.properties["tokens"]) == len(prompts[0].prompt)
    square = show_kernel_heads(planted.model, prompts[0], [(1, 0), (1, 5)])
    assert np.array(square.properties["attention"])[0][-1] == pytest.approx(shares, abs=1e-3)


def test_one_prompts_attention_beside_its_kernel(planted: Any, account: Any) -> None:
    from matplotlib.figure import Figure

    prompts, axes = prompts_of(planted), Figure().add_subplot()
    plot_prompt(planted.model, account.regression, prompts, 2, (1, 0), ax=axes)
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    kernel = next(line for line in axes.lines if line.get_label() == "by its kernel")
    np.testing.assert_allclose([bars[i] for i in range(8)], kernel.get_xdata(), atol=1e-3)


def test_what_cannot_be_shown_is_refused(planted: Any, account: Any) -> None:
    prompts = prompts_of(planted)
    for call, message in (
        (lambda: show_demonstrations(planted.model, prompts[0], [(9, 0)]), "the model has 2 x 6"),
        (lambda: show_demonstrations(planted.model, prompts[0], []), "got 0 heads"),
        (lambda: show_demonstrations(planted.model, prompts[0], [(1, 0)] * 3, max_heads=2), "got 3 heads"),
        (lambda: plot_prompt(planted.model, account.regression, prompts[:5], 0, (1, 0)), "got 5 prompts"),
        (lambda: plot_prompt(planted.model, account.regression, prompts, 99, (1, 0)), "got item 99"),
        (lambda: plot_prompt(planted.model, account.regression, prompts, 0, (0, 99)), "one that was named"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def prompts_of(planted: Any) -> list[Any]:
    """Those of the account."""
    options: dict[str, Any] = {"n_candidates": None, "seed": 1, "prepend_bos": True}
    return account_prompts(planted.model, planted.task, 8, N_PROMPTS, **options)
