"""What a report says of its own method: words that depend on the corpus, the model and the options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechicl.analyses.heads.map import HeadMap
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


def method(priming: Any, ife: Any) -> dict[str, Any]:
    """The template's variables for the sections on terms, method and caveats."""
    dative = set(priming.forms) in ({"PD", "DO"}, {"PO", "DO"})
    prepositional = next((form for form in priming.forms if form != "DO"), "")
    items = priming.items
    external = uses_external_norms(ife)
    return {
        "terms": f"{prepositional} is the prepositional dative, DO the double object." if dative else "",
        "gloss": f" ({', '.join(GLOSS[form == 'DO'] for form in priming.forms)})" if dative else "",
        "counts": {
            "pairs": f"{len(items):,}",
            "prime_verbs": f"{items['prime_verb'].nunique()}",
            "targets": f"{items['target'].nunique():,}",
            "ife_verbs": f"{len(ife.verbs)}",
        },
        "bos": {True: " (after a beginning-of-sequence token)", False: " (without a beginning-of-sequence token)"}.get(
            priming.provenance.prepend_bos, ""
        ),
        "bias_words": _bias_words(priming, external),
        "bias_caveat": _bias_caveat(external),
        "overlap": _overlap(priming),
        "built_in": number(_built_in_slope(ife)),
        "adjusted": bool(ife.estimates["estimand"].str.endswith("_raw").any()),
        "resamples": _thousands(ife.provenance.options.get("n_boot")),
        "orders": _thousands(ife.provenance.options.get("n_permutations")),
        "threshold": number(1 - ife.level, 2).lstrip("0"),
    }


def head_method(heads: Sequence[HeadMap]) -> dict[str, Any]:
    """The template's variables for the words on localisation; without head maps there are none."""
    ablations = dict.fromkeys(head_map.ablation for head_map in heads)
    return {
        "localised": [head_map.effect for head_map in heads],
        "slopes_localised": any(head_map.over == "slope" for head_map in heads),
        "head_counts": {
            name: " or ".join(dict.fromkeys(_thousands(head_map.provenance.options.get(name)) for head_map in heads))
            for name in ("n_items", "n_candidates", "n_boot", "n_permutations")
        },
        "head_threshold": " or ".join(dict.fromkeys(number(1 - h.level, 2).lstrip("0") for h in heads)),
        "ablation_caveats": [ABLATION_CAVEATS[name] for name in ablations if name in ABLATION_CAVEATS],
    }


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


def _bias_caveat(external: bool) -> dict[str, str]:
    if external:
        return {
            "title": "The bias is not the model's own.",
            "text": "Norms from outside may differ from what this model expects; an error-driven learner would follow "
            "its own expectations.",
        }
    return {
        "title": "Bias and outcome come from one model.",
        "text": "Whatever distorts this model's preferences enters both axes. The analysis accepts norms from outside "
        "(human ratings, another model) in place of the bias.",
    }


def _overlap(priming: Any) -> str:
    cause = "Where prime and target share their preposition, repeating that word can pass for repeating the structure"
    if "shared_preposition" not in priming.items:
        return f"{cause}. This corpus does not record whether they do."
    share = float(priming.items["shared_preposition"].astype(float).mean())
    if share == 0:
        return f"{cause}. No pair of this corpus does: they are excluded by design."
    return f"{cause}. They do in {percent(share)} of the pairs here; a corpus can be drawn without such pairs."
