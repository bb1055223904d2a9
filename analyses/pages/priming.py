"""What a report says about priming and the inverse frequency effect: two sections, from results however they came."""

from __future__ import annotations

from typing import Any

from mechicl.analyses.pages import content as content
from mechicl.analyses.pages import method as method
from mechicl.analyses.pages.section import Drawing, Section
from mechicl.views import plot_forest, plot_ife_scatter, plot_verb_effects
from mechicl.wording import percent

FRAMES = {
    "items": "one row a pair of prime and target: log-odds in every context",
    "sentences": "one row a sentence: log-odds without a prime",
    "bias": "one row a verb: bias with intervals",
    "effects": "priming effects by contrast and scale",
    "verb_effects": "the same by verb of the prime",
}
SLOPE_FRAMES = {
    "verbs": "one row a verb: what the slopes were fitted to",
    "slopes": "all estimands on both scales",
    "models": "all estimands of all models",
}


def priming_section(priming: Any) -> Section:
    """Does the model show structural priming?"""
    answer = content.priming_answer(priming)
    first, second = priming.forms
    words = (
        f"Priming effect by verb of the prime, in nats: L after {first} minus L after {second}, with "
        f"{percent(priming.level)} intervals. Filled marks: the verb's own interval excludes zero (some do by chance). "
        "The dashed line and the band are the mean over all pairs."
    )
    tall = 1.3 + 0.21 * max(priming.items["prime_verb"].nunique(), 4)
    options = content.option_words(priming.provenance.seeds | priming.provenance.options)
    return Section(
        slug="priming",
        question="Does it show structural priming?",
        kind=answer["kind"],
        verdict=answer["verdict"],
        brief=answer["sentence"],
        sentence=answer["sentence"],
        paragraphs=[
            f"Corpus “{priming.corpus}”, {len(priming.items):,} pairs of prime and target. "
            f"{method.terms(priming.forms)}".strip()
        ],
        tables=[content.effects_table(priming)],
        drawings=[Drawing("priming_by_verb", words, (6.4, tall), lambda ax: plot_verb_effects(priming, ax=ax))],
        method=method.priming_method(priming),
        caveats=method.priming_caveats(priming),
        frames={name: (getattr(priming, name), words) for name, words in FRAMES.items()},
        results={"priming": priming},
        python=("from mechicl.results import load", 'priming = load("results/priming")'),
        provenance=[("Scored at", priming.provenance.created), ("Scoring", options)],
    )


def ife_section(priming: Any, ife: Any, comparison: Any = None) -> Section:
    """Does the model show the inverse frequency effect? ``comparison``: several models side by side."""
    answer = content.ife_answer(ife)
    scales = [scale for scale in ("probability", "logit") if content.has_scale(ife, scale)]
    tables = [content.estimates_table(ife, scale) for scale in scales]
    tables.append(content.verbs_table(priming, ife))
    frames = {"verbs": ife.verbs, "slopes": ife.estimates}
    results = {"inverse_frequency": ife}
    if comparison is not None:
        tables.append(content.comparison_table(comparison, ife.forms))
        frames["models"] = comparison.estimates
        results["comparison"] = comparison
    said = f"{answer['sentence']} {answer['notes']}".strip()
    return Section(
        slug="ife",
        question="Does it show the inverse frequency effect?",
        kind=answer["kind"],
        verdict=answer["verdict"],
        brief=said,
        sentence=said,
        paragraphs=[f"{answer['own_slope']} {answer['other_scale']}"],
        tables=tables,
        drawings=_drawings(ife, comparison),
        method=method.ife_method(priming, ife),
        caveats=method.ife_caveats(priming, ife),
        frames={name: (frame, SLOPE_FRAMES[name]) for name, frame in frames.items()},
        results=results,
        warnings=list(getattr(comparison, "warnings", None) or []),
        python=_python(ife, comparison),
        provenance=[("Slopes", _options(priming, ife))],
    )


def _options(priming: Any, ife: Any) -> str:
    """Seeds and options that scoring had not, or had others of."""
    before = priming.provenance.seeds | priming.provenance.options
    after = ife.provenance.seeds | ife.provenance.options
    return content.option_words({k: v for k, v in after.items() if k not in before or before[k] != v})


def _python(ife: Any, comparison: Any) -> list[str]:
    """Lines that repeat the analysis from the priming result."""
    options = ife.provenance.options | {"seed": ife.provenance.seeds.get("inverse_frequency", 0)}
    norms = ', bias=ife.verbs[["verb", "bias"]]' if method.uses_external_norms(ife) else ""
    names = ("n_boot", "n_permutations", "level", "seed")
    arguments = "".join(f", {name}={options[name]!r}" for name in names if name in options)
    lines = [
        "from mechicl.analyses.inverse_frequency import inverse_frequency_effect",
        'ife = load("results/inverse_frequency")',
        f"again = inverse_frequency_effect(priming{norms}{arguments})",
        "print(again.verdict, again.estimates.equals(ife.estimates))",
    ]
    return lines if comparison is None else [*lines, 'print(load("results/comparison").to_frame())']


def _drawings(ife: Any, comparison: Any) -> list[Drawing]:
    first, second = ife.forms
    neutral = " The dotted line is the neutral baseline." if content.has_neutral(ife) else ""
    scatter = (
        f"Share of {first} after a {first} prime (dots, solid line) and a {second} prime (triangles, dashed line) "
        f"over the bias of the prime's verb. Falling lines are the inverse frequency effect; the distance between the "
        f"two marks of a verb is its priming effect.{neutral} Bands: {percent(ife.level)} t intervals of the lines."
    )
    logit = "The same on the logit scale: log-odds over log-odds, where nothing saturates."
    drawings = [Drawing("inverse_frequency", scatter, (6.4, 5.2), lambda ax: plot_ife_scatter(ife, ax=ax))]
    if content.has_scale(ife, "logit"):
        draw = lambda ax: plot_ife_scatter(ife, scale="logit", ax=ax)  # noqa: E731
        drawings.append(Drawing("inverse_frequency_logit", logit, (6.4, 5.2), draw))
    if comparison is not None:
        n_models = comparison.estimates["model"].nunique()
        forest = "Models side by side: slopes and their sums, with intervals. Left of the line: negative."
        size = (6.4, 1.5 + 0.8 * n_models)
        drawings.append(Drawing("models", forest, size, lambda ax: plot_forest(comparison, ax=ax)))
    return drawings
