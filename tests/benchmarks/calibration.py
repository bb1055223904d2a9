"""How often is a localisation of heads wrong? Family-wise error, power and coverage where the truth is known.

    python tests/benchmarks/calibration.py                     # writes results/calibration.md and .csv beside it
    python tests/benchmarks/calibration.py --model-draws 20 --formula-draws 20 --out /some/where.md

Planted models with fresh verbs and noise (`calibration_draws`): null draws, in which no head causes anything, and two
kinds in which one head writes the prediction error and one the structure, weakly and strongly. As many null draws as
planted ones, of which half are weak. Draws through the network, and many more through the closed forms that it equals.
Finished draws are kept in the csv file, and a second call goes on from there. Draws run through joblib: `--n-jobs`, or
a `joblib.parallel_config` of another backend.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy.stats
import tyro
from calibration_draws import Setting, draw
from tqdm.auto import tqdm

STRENGTH = {"no cause": 0.0, "weak": 1.0, "strong": 2.0}
SETTINGS = {
    "model": Setting("model", n_layers=2, n_heads=5, n_targets=6, n_items=48, n_candidates=3, noise=0.3),
    "formula": Setting("formula", n_layers=4, n_heads=8, n_targets=20, n_items=96, n_candidates=10, noise=0.15),
    "probability": Setting(
        "formula", n_layers=4, n_heads=8, n_targets=20, n_items=96, n_candidates=10, noise=0.15, scale="probability"
    ),
}
Cell = Callable[[pd.DataFrame], pd.Series]

# What the rows of the table are: words, the numbers behind them, nominal value, and in which draws they mean something.
ROWS: list[tuple[str, Cell, str, str]] = [
    ("the gate lets pass", lambda d: d["gate"], "5% / power", ""),
    ("a false head is confirmed, as used", lambda d: d["gate"] & d["false"], "at most 5%", ""),
    ("a false head is confirmed, gate forced open", lambda d: d["false"], "at most 5%", ""),
    ("a false head is below .05 in the sweep of all heads", lambda d: d["sweep_false"], "5%", ""),
    ("a true head is confirmed, as used", lambda d: d["found"] * d["gate"], "power", "planted"),
    ("a true head is confirmed, gate forced open", lambda d: d["found"], "power", "planted"),
    ("the gate's interval holds the truth", lambda d: d["gate_covers"], "95%", "nats"),
    ("noise heads' intervals hold 0, selection half", lambda d: d["noise_covered"], "95%", ""),
    ("noise heads' intervals hold 0, confirmation half", lambda d: d["noise_covered_confirm"], "95%", ""),
    ("true heads' intervals hold the truth, selection half", lambda d: d["cause_covered"], "95%", "planted"),
    ("true heads' intervals hold the truth, confirmation half", lambda d: d["cause_covered_confirm"], "95%", "planted"),
]


def main(
    model_draws: int = 200,
    formula_draws: int = 1_000,
    probability_draws: int = 500,
    n_jobs: int = 1,
    seed: int = 0,
    out: Path = Path(__file__).parent / "results" / "calibration.md",
) -> None:
    """Draw as many null and as many planted models of each kind, and write the table.

    Args:
        model_draws: through the network.
        formula_draws: through the closed forms.
        probability_draws: the same on the scale of probabilities, null draws only.
        n_jobs: processes.
        seed: of all draws.
        out: the table; a csv file beside it holds every draw.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"model": model_draws, "formula": formula_draws, "probability": probability_draws}
    done = _finished(out.with_suffix(".csv"), seed)
    todo = [job for job in _jobs(numbers) if job not in done.groups]
    began = time.perf_counter()
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    kinds = list(STRENGTH)
    found = parallel(
        joblib.delayed(draw)(SETTINGS[way], kind, STRENGTH[kind], [seed, kinds.index(kind), number])
        for way, kind, number in todo
    )
    with out.with_suffix(".csv").open("a", encoding="utf-8") as file:
        for (way, _, number), rows in tqdm(zip(todo, found, strict=True), total=len(todo), desc="draws", unit="draw"):
            frame = pd.DataFrame(rows).assign(way=way, number=number, seed=seed, setting=_mark(SETTINGS[way]))
            frame.to_csv(file, index=False, header=file.tell() == 0, float_format="%.6g")
            file.flush()
    table = pd.read_csv(out.with_suffix(".csv"))
    wanted = pd.MultiIndex.from_tuples(list(_jobs(numbers)), names=["way", "kind", "number"])
    table = table[(table["seed"] == seed) & table.set_index(wanted.names).index.isin(wanted)]
    text = "\n".join(_page(table))
    out.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"\n{len(todo)} draws in {time.perf_counter() - began:.0f} s, {len(done.groups)} were there before")


def _jobs(numbers: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    """Way, kind and number of every draw; kinds take turns, so that an interrupted study has some of each."""
    for way, n in reversed(numbers.items()):  # the fast ones first
        for i in range(n):
            yield way, "no cause", i
            if way != "probability":
                yield way, ("weak", "strong")[i % 2], i


def _finished(path: Path, seed: int) -> pd.api.typing.DataFrameGroupBy:
    """Draws that are there already; raises ValueError where they have other settings."""
    if not path.is_file():
        return pd.DataFrame(columns=["way", "kind", "number"]).groupby(["way", "kind", "number"])
    table = pd.read_csv(path)
    known = {_mark(setting) for setting in SETTINGS.values()}
    if not set(table["setting"]) <= known:
        raise ValueError(f"{path} holds draws of other settings; delete it, or write elsewhere (--out)")
    return table[table["seed"] == seed].groupby(["way", "kind", "number"])


def _mark(setting: Setting) -> str:
    """A short sign of a setting: draws of another one are not these."""
    return hashlib.sha256(repr(setting).encode()).hexdigest()[:8]


def _page(table: pd.DataFrame) -> Iterator[str]:
    """The tables in Markdown."""
    titles = {
        "model": "Through the network",
        "formula": "Through the closed forms",
        "probability": "Through the closed forms, on the scale of probabilities",
    }
    yield "# Calibration of head localisation\n"
    yield "Share of draws (of heads, where a row speaks of heads) with its 95% interval over draws. How the models are"
    yield "made, and what is true in them: `tests/benchmarks/calibration_draws.py`. Regenerate this page with"
    yield f"`python tests/benchmarks/calibration.py`. numpy {np.__version__}, Python {platform.python_version()}.\n"
    for way, part in [(way, table[table["way"] == way]) for way in titles if way in set(table["way"])]:
        yield f"## {titles[way]}\n"
        yield f"`{SETTINGS[way]}`"
        if SETTINGS[way].via == "model":
            yield f"\nLargest difference of a head's effect from its closed form: {part['gap'].max():.1e}"
        yield ""
        cells = [(kind, effect) for kind in STRENGTH for effect in ("ife", "priming") if kind in set(part["kind"])]
        yield "| | nominal | " + " | ".join(f"{effect}, {kind}" for kind, effect in cells) + " |"
        yield "|---|---|" + "---|" * len(cells)
        counts = [len(part[(part["kind"] == kind) & (part["effect"] == effect)]) for kind, effect in cells]
        yield "| draws | | " + " | ".join(map(str, counts)) + " |"
        for words, of, nominal, only in ROWS:
            if only == "nats" and SETTINGS[way].scale != "nats":
                continue
            shown = [
                ""
                if only == "planted" and kind == "no cause"
                else _cell(of(part[(part["kind"] == kind) & (part["effect"] == effect)]))
                for kind, effect in cells
            ]
            if any(shown):
                yield f"| {words} | {nominal} | " + " | ".join(shown) + " |"
        yield ""


def _cell(values: pd.Series) -> str:
    """Mean in percent: with the binomial interval where draws are yes or no, else mean and 1.96 standard errors."""
    known = values.dropna().astype(float)
    if known.empty:
        return ""
    mean = known.mean()
    if known.isin([0, 1]).all():
        interval = scipy.stats.binomtest(int(known.sum()), len(known)).proportion_ci()
        low, high = interval.low, interval.high
    else:
        low, high = np.clip([mean - 1.96 * known.sem(), mean + 1.96 * known.sem()], 0, 1)
    return f"{100 * mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    tyro.cli(main)
