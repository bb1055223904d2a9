"""What a report says of its own method: words that depend on the corpus, the model and the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.pages.content import has_neutral
from mechicl.analyses.pages.folder import page_template
from mechicl.analyses.pages.section import Section
from mechicl.wording import number, percent

GLOSS = ("“A doctor brought a file to a guest.”", "“A doctor brought a guest a file.”")  # prepositional, double object
ABLATION_CAVEATS = {
    "interchange": "An exchange with the other form of the prime shows what depends on the form. A head that reacts to "
    "the verb whatever its form writes the same in both, and does not show.",
    "mean": "Replacing an output by its mean over other verbs, form by form, takes out what is particular to the "
    "prime's verb and keeps the form: it finds the heads behind a slope, not those behind priming as such.",
    "resample": "Replacing an output by that after another verb's prime keeps the form: it finds what is particular to "
    "the verb, with the noise of the verb that was drawn.",
    "zero": "An output of zero is nothing that the model ever sees. Other heads may then react to the damage, and make "
    "up for it or not; prefer a replacement that the model knows.",
}


HEAD_CAVEATS = [
    (
        "Not confirmed is not idle",
        "The search has limited power: intervals say how large a missed change could be. And heads can stand in for "
        "one another, so that replacing any one of them shows nothing; the curves, which replace many at once, tell of "
        "that.",
    ),
    (
        "Changes are total effects",
        "What later heads and layers make of the replaced output is part of a head's change. It does not say that the "
        "head writes to the output directly, and what a head attends to does not say what it passes on.",
    ),
    (
        "One corpus, one phrasing",
        "Selection and confirmation differ in verbs and targets, not in sentence patterns; whether the same heads act "
        "on other sentences is another experiment.",
    ),
]


def priming_method(priming: Any) -> list[tuple[str, str]]:
    """How effects were measured, a paragraph each."""
    words = _paragraphs(priming)
    return [("Design", words.design()), ("Scoring", words.scoring())]


def priming_caveats(priming: Any) -> list[tuple[str, str]]:
    """What effects of priming do not show."""
    found = [("Preposition overlap", _overlap(priming))]
    return found if _has_neutral_items(priming) else [*found, ("No neutral prime", _paragraphs(priming).no_neutral())]


def ife_method(priming: Any, ife: Any) -> list[tuple[str, str]]:
    """How slopes were measured, a paragraph each."""
    words = _paragraphs(priming, ife)
    return [
        ("Verb bias", _bias_words(priming, uses_external_norms(ife))),
        ("Slopes", words.slopes()),
        ("Uncertainty", words.uncertainty()),
        ("Verdict", words.verdict_rule()),
    ]


def ife_caveats(priming: Any, ife: Any) -> list[tuple[str, str]]:
    """What slopes do not show."""
    words = _paragraphs(priming, ife)
    return [
        ("The effect does not identify gradient descent", words.no_gradient_descent()),
        ("The sigmoid saturates", words.saturation()),
        ("A slope that the design brings along", words.design_slope()),
        _bias_caveat(uses_external_norms(ife)),
        (
            "Verbs are the sample",
            "Targets are reused over primes, so the number of pairs says little; inference rests on "
            f"{len(ife.verbs)} verbs.",
        ),
    ]


def terms(forms: tuple[str, str]) -> str:
    """What the names of the forms mean; nothing where they are not datives."""
    return f"{_prepositional(forms)} is the prepositional dative, DO the double object." if _is_dative(forms) else ""


def with_head_method(sections: Sequence[Section], heads: Sequence[HeadMap], ife: Any = None) -> list[Section]:
    """The same sections of head maps; the first says how heads were found, for all of them."""
    if not sections:
        return []
    ablations = [
        ABLATION_CAVEATS[name] for name in dict.fromkeys(h.ablation for h in heads) if name in ABLATION_CAVEATS
    ]
    own = [("What was put in place matters", " ".join(ablations))] if ablations else []
    module = page_template("priming.html.j2").make_module(_head_counts(heads, ife))
    method = [("Heads", module.heads())]  # type: ignore[attr-defined]
    caveats = [*HEAD_CAVEATS[:2], *own, *HEAD_CAVEATS[2:]]
    return [replace(sections[0], method=method, caveats=caveats), *sections[1:]]


def _paragraphs(priming: Any, ife: Any = None) -> Any:
    """The macros of the template, with their numbers."""
    first, second = priming.forms
    items = priming.items
    bos = {True: " (after a beginning-of-sequence token)", False: " (without a beginning-of-sequence token)"}
    words: dict[str, Any] = {
        "first": first,
        "second": second,
        "corpus": priming.corpus,
        "gloss": f" ({', '.join(GLOSS[form == 'DO'] for form in priming.forms)})" if _is_dative(priming.forms) else "",
        "counts": {
            "pairs": f"{len(items):,}",
            "prime_verbs": f"{items['prime_verb'].nunique()}",
            "targets": f"{items['target'].nunique():,}",
        },
        "bos": bos.get(priming.provenance.prepend_bos, ""),
        "neutral": _has_neutral_items(priming),
    }
    if ife is not None:
        words |= {
            "neutral": has_neutral(ife),
            "built_in": number(_built_in_slope(ife)),
            "adjusted": bool(ife.estimates["estimand"].str.endswith("_raw").any()),
            "resamples": _thousands(ife.provenance.options.get("n_boot")),
            "orders": _thousands(ife.provenance.options.get("n_permutations")),
            "threshold": number(1 - ife.level, 2).lstrip("0"),
        }
    return page_template("priming.html.j2").make_module(words)


def _head_counts(heads: Sequence[HeadMap], ife: Any) -> dict[str, Any]:
    first, second = ife.forms if ife is not None else ("the first form", "the second")
    return {
        "first": first,
        "second": second,
        "neutral": ife is not None and has_neutral(ife),
        "slopes_localised": any(head_map.over == "slope" for head_map in heads),
        "head_counts": {
            name: " or ".join(dict.fromkeys(_thousands(head_map.provenance.options.get(name)) for head_map in heads))
            for name in ("n_items", "n_candidates", "n_boot", "n_permutations")
        },
        "head_threshold": " or ".join(dict.fromkeys(number(1 - h.level, 2).lstrip("0") for h in heads)),
    }


def _is_dative(forms: tuple[str, str]) -> bool:
    return set(forms) in ({"PD", "DO"}, {"PO", "DO"})


def _prepositional(forms: tuple[str, str]) -> str:
    return next((form for form in forms if form != "DO"), "")


def _has_neutral_items(priming: Any) -> bool:
    return bool(priming.items["L_neutral"].notna().any())


def uses_external_norms(ife: Any) -> bool:
    """Whether the slopes are over a bias that this model's own unprimed scores did not give."""
    return bool(ife.provenance.options.get("external_norms"))


def _built_in_slope(ife: Any) -> float:
    """The slope of the targets without any prime, on the probability scale; NaN where it is unknown."""
    rows = ife.estimates.query("scale == 'probability' and estimand == 'slope_unprimed'")
    return float(rows["estimate"].iloc[0]) if len(rows) else float("nan")


def _thousands(value: int | None) -> str:
    return "" if value is None else f"{value:,} "


def _bias_words(priming: Any, external: bool) -> str:
    first, _ = priming.forms
    if external:
        return (
            f"The bias of a verb towards {first} comes from norms that were given from outside, not from this model; "
            "verbs without a norm are left out."
        )
    return (
        f"The bias of a verb is the mean share of {first} over the corpus's {len(priming.sentences):,} sentences that "
        f"use it, each read without a prime: 1 where the model always prefers {first}, 0 where it never does."
    )


def _bias_caveat(external: bool) -> tuple[str, str]:
    if external:
        return (
            "The bias is not the model's own",
            "Norms from outside may differ from what this model expects; an error-driven learner would follow its own "
            "expectations.",
        )
    return (
        "Bias and outcome come from one model",
        "Whatever distorts this model's preferences enters both axes. The analysis accepts norms from outside (human "
        "ratings, another model) in place of the bias.",
    )


def _overlap(priming: Any) -> str:
    cause = "Where prime and target share their preposition, repeating that word can pass for repeating the structure"
    if "shared_preposition" not in priming.items:
        return f"{cause}. This corpus does not record whether they do."
    share = float(priming.items["shared_preposition"].astype(float).mean())
    if share == 0:
        return f"{cause}. No pair of this corpus does: they are excluded by design."
    return f"{cause}. They do in {percent(share)} of the pairs here; a corpus can be drawn without such pairs."
