"""What a report says about the parts of one model that memorise and generalise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechicl.analyses.components.report_method import CAVEATS, KERNEL_METHOD, METHOD
from mechicl.analyses.components.report_tables import (
    ablations_table,
    kernels_table,
    patches_table,
    probes_table,
    transplants_table,
)
from mechicl.analyses.components.words import card, curve_sentence, kernels_sentence
from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Drawing, Section

if TYPE_CHECKING:
    from mechicl.analyses.components.account import StrategyComponents
    from mechicl.analyses.components.training_kernels import KernelsInTraining

SLUG, KERNELS = "components", "kernel-in-training"
HALF = (5.4, 4.0)
FRAMES = {
    "curve": "d_rel of the checkpoints, with residual and loss",
    "transplants": "weights transplanted: shares of the change of d_rel, both directions and controls",
    "transplanted_sets": "d_rel of every set of transplanted parts",
    "patches": "activations patched between the checkpoints",
    "ablations": "parts ablated in either checkpoint",
    "probes": "what states hold, over training",
    "rises": "when it can be read",
}


def components_section(found: StrategyComponents) -> Section:
    """The section of `mechicl.analyses.pages.sections`."""
    kind, verdict = card(found)
    tables = []
    if found.transplants is not None:
        tables.append(transplants_table(found.transplants))
    if found.patches is not None:
        tables.append(patches_table(found.patches))
    if found.ablations:
        tables.append(ablations_table(found.ablations, (found.before, found.after)))
    if found.probes is not None:
        tables.append(probes_table(found.probes))
    return Section(
        slug=SLUG,
        question="Which parts of the model memorise, and which generalise?",
        kind=kind,
        verdict=verdict,
        brief=curve_sentence(found.curve, found.before, found.after),
        sentence=found.verdict,
        tables=tables,
        drawings=_drawings(found),
        method=METHOD,
        caveats=[*CAVEATS, *([("Notes on this model", f"{'; '.join(found.notes)}.")] if found.notes else [])],
        frames={f"{SLUG}_{name}": (frame, FRAMES[name]) for name, frame in _frames(found).items()},
        results={"strategy_components": found},
        provenance=[("Parts of the model", option_words({"model": found.point} | found.provenance.seeds))],
    )


def kernels_section(found: KernelsInTraining) -> Section:
    """The section about the generalising kernel in the attention of classification models, over training."""
    rows = found.together.dropna(subset=["rho"])
    # where models leave generalising, and where they stay, the kernel should follow d_rel: correlations above 0
    clear = rows[rows["low"] > 0]
    kind = "yes" if len(rows) and len(clear) > len(rows) / 2 else "none"
    measures = (
        ("unique_r2", "What the generalising predictor's kernel explains of log attention beyond nuisances."),
        ("d_rel", "The relative distance of the same models: 0 generalises, 1 memorises."),
    )
    return Section(
        slug=KERNELS,
        question="Does attention follow the generalising kernel, and leave it as models memorise?",
        kind=kind,
        verdict=f"With d_rel in {len(clear)} of {len(rows)} models",
        brief=kernels_sentence(found),
        sentence=kernels_sentence(found),
        tables=[kernels_table(found)],
        drawings=[
            Drawing(f"{KERNELS}_{name}", words, HALF, partial(_draw_kernels, found, name), half=True)
            for name, words in measures
        ],
        method=KERNEL_METHOD,
        frames={
            "kernels_in_training": (found.frame, "the ideal kernel and d_rel at each checkpoint"),
            "kernels_together": (found.together, "the kernel beside d_rel, one row a model"),
        },
        results={"kernels_in_training": found},
        provenance=[("Kernel over training", option_words(found.provenance.seeds | found.provenance.options))],
    )


def _draw_kernels(found: KernelsInTraining, measure: str, ax: Any) -> Any:
    return found.plot(ax=ax, measure=measure)


def _frames(found: StrategyComponents) -> dict[str, pd.DataFrame]:
    frames = {"curve": found.curve}
    if found.transplants is not None:
        frames |= {"transplants": found.transplants.frame, "transplanted_sets": found.transplants.sets}
    if found.patches is not None:
        frames["patches"] = found.patches.frame
    if found.ablations:
        steps = (found.before, found.after)
        own = [one.frame.assign(step=step) for one, step in zip(found.ablations, steps, strict=True)]
        frames["ablations"] = pd.concat(own, ignore_index=True)
    if found.probes is not None:
        frames |= {"probes": found.probes.frame, "rises": found.probes.rises}
    return frames


def _drawings(found: StrategyComponents) -> list[Drawing]:
    drawings = [
        Drawing(
            f"{SLUG}_curve",
            "The relative distance over training, with its residual; dotted lines mark the checkpoints compared.",
            (6.6, 3.6),
            found.plot,
        )
    ]
    pale = "Pale marks: models that are near neither strategy (residual above 1), whose d_rel means nothing."
    if found.transplants is not None:
        words = "Shares of the change of d_rel that parts of the weights move, both ways and over all orders."
        height = 2.2 + 0.5 * found.transplants.frame["part"].nunique()
        drawings.append(Drawing(f"{SLUG}_transplants", f"{words} {pale}", (7.0, height), found.transplants.plot))
    if found.patches is not None:
        words = "Shares that activations of one checkpoint move in the other's run, at all positions; controls grey."
        height = 2.2 + 0.42 * len(found.patches.frame[["site", "layer", "head"]].drop_duplicates())
        drawings.append(Drawing(f"{SLUG}_patches", f"{words} {pale}", (7.0, height), found.patches.plot))
    for own, step in zip(found.ablations, (found.before, found.after), strict=bool(found.ablations)):
        words = f"After {step:,} steps: d_rel without a part of what each part computes (filled: named). {pale}"
        drawings.append(_ablation(own, f"{SLUG}_ablations_{step}", words))
    if found.probes is not None:
        drawings += [_probe(found.probes, place) for place in ("attention output", "stream after block")]
    return drawings


def _ablation(own: Any, name: str, words: str) -> Drawing:
    size = (5.4, 2.4 + 0.3 * own.frame["component"].nunique() * own.frame["layer"].nunique())
    return Drawing(name, words, size, own.plot, half=True)


def _probe(probes: Any, place: str) -> Drawing:
    words = (
        f"What the {place} holds of each strategy's quantities beyond the other's, over training; dotted: states of "
        "other sequences."
    )
    name = f"{SLUG}_probes_{place.replace(' ', '_')}"
    return Drawing(name, words, HALF, lambda ax: probes.plot(ax=ax, place=place), half=True)
