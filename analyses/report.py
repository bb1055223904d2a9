"""A folder that a reader opens in a browser: does this model show structural priming and the inverse frequency effect?

`index.html` holds everything (pictures, tables, method, caveats, provenance) and asks no network for anything; beside
it lie the frames as CSV, the pictures as PNG and the results as they were saved.
"""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechicl.analyses import report_content as content
from mechicl.analyses.report_method import method, uses_external_norms
from mechicl.views import STYLE, plot_forest, plot_ife_scatter, plot_verb_effects
from mechicl.wording import percent

MARKER = '<meta name="generator" content="mechicl">'
FOLDERS = ("frames", "pictures", "results")
BESIDE = (("corpus/", "the corpus, for mechicl.tasks.corpus.load_corpus"), ("scores/", "finished scores, to be reused"))
DOTS_PER_INCH = 200


def write_report(
    folder: str | Path,
    *,
    priming: Any,
    ife: Any,
    comparison: Any = None,
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Write the report of a priming experiment and its inverse frequency analysis; return the path of `index.html`.

    ``comparison``: several models side by side, which adds a table and a forest plot. ``command``: the command line
    that made the results, to be quoted. Other files in ``folder`` (kept scores, say) stay where they are.

    Raises ValueError where the folder already holds a report, unless ``overwrite``; where it holds files of the same
    names that are no report, always. Nothing is replaced before the new report is complete.
    """
    target = Path(folder)
    check_report_folder(target, overwrite=overwrite)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as staging:
        new = Path(staging)
        pictures = _pictures(priming, ife, comparison)
        (new / "pictures").mkdir()
        for picture in pictures:
            (new / "pictures" / f"{picture['name']}.png").write_bytes(picture["bytes"])
        _write_frames(new / "frames", priming, ife, comparison)
        for name, result in (("priming", priming), ("inverse_frequency", ife), ("comparison", comparison)):
            if result is not None:
                result.save(new / "results" / name)
        kept = [words for words in BESIDE if (target / words[0]).is_dir()]
        files = [*_files(pictures, comparison), *kept]
        page = _render(priming, ife, comparison, pictures, files, command)
        (new / "index.html").write_text(page, encoding="utf-8")
        for name in FOLDERS:
            if (target / name).exists():
                shutil.rmtree(target / name)
            (new / name).rename(target / name)
        (new / "index.html").replace(target / "index.html")  # last: a folder with it is complete
    return target / "index.html"


def check_report_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raise ValueError where :func:`write_report` would refuse ``folder``: ask before hours of scoring, not after."""
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"Got {target}, which is a file; expected a folder to write a report into.")
    taken = [name for name in ("index.html", *FOLDERS) if (target / name).exists()]
    index = target / "index.html"
    ours = index.is_file() and MARKER in index.read_text(encoding="utf-8", errors="replace")
    if taken and not ours:
        raise ValueError(f"Got {target}, which holds {', '.join(taken)} of something else; choose another folder.")
    if taken and not overwrite:
        raise ValueError(f"Got {target}, which already holds a report; choose another folder, or overwrite it.")


def _render(
    priming: Any,
    ife: Any,
    comparison: Any,
    pictures: list[dict[str, Any]],
    files: list[tuple[str, str]],
    command: str | None,
) -> str:
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["tied"] = _tied
    first, second = priming.forms
    scales = [scale for scale in ("probability", "logit") if content.has_scale(ife, scale)]
    tables = [content.effects_table(priming), *(content.estimates_table(ife, scale) for scale in scales)]
    tables.append(content.verbs_table(priming, ife))
    if comparison is not None:
        tables.append(content.comparison_table(comparison, ife.forms))
    model = priming.provenance.model or "a model without a name"
    return environment.get_template("report.html.j2").render(
        title=f"Structural priming and the inverse frequency effect in {model}",
        subtitle=f"Corpus “{priming.corpus}”, {len(priming.items):,} pairs of prime and target. {_moment(ife)}",
        priming=content.priming_answer(priming),
        ife=content.ife_answer(ife),
        level=percent(ife.level),
        pictures=pictures,
        tables=tables,
        warnings=list(getattr(comparison, "warnings", None) or []),
        corpus=priming.corpus,
        first=first,
        second=second,
        neutral=content.has_neutral(ife),
        command=command,
        **method(priming, ife),
        provenance=content.provenance_rows(priming, ife),
        python=_python_lines(ife, comparison),
        files=files,
    )


def _tied(text: str) -> str:
    """No line break inside "p = .034" or an interval."""
    text = re.sub(r"\bp ([=<>]) (?=\.)", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    return re.sub(r"\[([^\]]{1,20}), ", "[\\1,\N{NO-BREAK SPACE}", text)


def _moment(ife: Any) -> str:
    return f"{ife.provenance.created[:16].replace('T', ' ')} UTC."


def _pictures(priming: Any, ife: Any, comparison: Any) -> list[dict[str, Any]]:
    first, second = ife.forms
    neutral = " The dotted line is the neutral baseline." if content.has_neutral(ife) else ""
    scatter = (
        f"Share of {first} after a {first} prime (dots, solid line) and a {second} prime (triangles, dashed line) "
        f"over the bias of the prime's verb. Falling lines are the inverse frequency effect; the distance between the "
        f"two marks of a verb is its priming effect.{neutral} Bands: {percent(ife.level)} t intervals of the lines."
    )
    effects = (
        f"Priming effect by verb of the prime, in nats: L after {first} minus L after {second}, with "
        f"{percent(ife.level)} intervals. Filled marks: the verb's own interval excludes zero (some do by chance). "
        "The dashed line and the band are the mean over all pairs."
    )
    logit = "The same on the logit scale: log-odds over log-odds, where nothing saturates."
    n_verbs = len(ife.verbs)
    drawings: list[tuple[str, str, tuple[float, float], Callable[[Axes], Any]]] = [
        ("inverse_frequency", scatter, (6.4, 5.2), lambda ax: plot_ife_scatter(ife, ax=ax)),
        ("priming_by_verb", effects, (6.4, 1.3 + 0.21 * max(n_verbs, 4)), lambda ax: plot_verb_effects(priming, ax=ax)),
    ]
    if content.has_scale(ife, "logit"):
        draw = lambda ax: plot_ife_scatter(ife, scale="logit", ax=ax)  # noqa: E731
        drawings.append(("inverse_frequency_logit", logit, (6.4, 5.2), draw))
    if comparison is not None:
        n_models = comparison.estimates["model"].nunique()
        forest = "Models side by side: slopes and their sums, with intervals. Left of the line: negative."
        size = (6.4, 1.5 + 0.8 * n_models)
        drawings.append(("models", forest, size, lambda ax: plot_forest(comparison, ax=ax)))
    return [_picture(name, caption, size, draw) for name, caption, size, draw in drawings]


def _picture(name: str, caption: str, size: tuple[float, float], draw: Callable[[Axes], Any]) -> dict[str, Any]:
    # A Figure of its own, unknown to pyplot: a report leaves no open figure behind.
    stream = BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(stream, format="png", metadata={"Software": None})
    raw = stream.getvalue()
    width, height = (round(96 * inches) for inches in size)
    encoded = base64.b64encode(raw).decode("ascii")
    return {"name": name, "bytes": raw, "data": encoded, "caption": caption, "alt": caption} | {
        "width": width,
        "height": height,
    }


FRAMES = {
    "items": "one row a pair of prime and target: log-odds in every context",
    "sentences": "one row a sentence: log-odds without a prime",
    "bias": "one row a verb: bias with intervals",
    "effects": "priming effects by contrast and scale",
    "verb_effects": "the same by verb of the prime",
    "verbs": "one row a verb: what the slopes were fitted to",
    "slopes": "all estimands on both scales",
    "models": "all estimands of all models",
}


def _write_frames(folder: Path, priming: Any, ife: Any, comparison: Any) -> None:
    folder.mkdir(parents=True)
    frames = {name: getattr(priming, name) for name in ("items", "sentences", "bias", "effects", "verb_effects")}
    frames |= {"verbs": ife.verbs, "slopes": ife.estimates}
    if comparison is not None:
        frames["models"] = comparison.estimates
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)


def _files(pictures: list[dict[str, Any]], comparison: Any) -> list[tuple[str, str]]:
    frames = [
        (f"frames/{name}.csv", words) for name, words in FRAMES.items() if name != "models" or comparison is not None
    ]
    names = ", ".join(f"{picture['name']}.png" for picture in pictures)
    return [
        *frames,
        (f"pictures/ ({names})", "the pictures of this page"),
        ("results/", "the results, for mechicl.results.load"),
    ]


def _python_lines(ife: Any, comparison: Any) -> str:
    options = ife.provenance.options | {"seed": ife.provenance.seeds.get("inverse_frequency", 0)}
    norms = ', bias=ife.verbs[["verb", "bias"]]' if uses_external_norms(ife) else ""
    names = ("n_boot", "n_permutations", "level", "seed")
    arguments = "".join(f", {name}={options[name]!r}" for name in names if name in options)
    lines = [
        "from mechicl.analyses.inverse_frequency import inverse_frequency_effect",
        "from mechicl.results import load",
        "",
        'priming, ife = load("results/priming"), load("results/inverse_frequency")',
        f"again = inverse_frequency_effect(priming{norms}{arguments})",
        "print(again.verdict, again.estimates.equals(ife.estimates))",
    ]
    if comparison is not None:
        lines.append('print(load("results/comparison").to_frame())')
    return "\n".join(lines)
