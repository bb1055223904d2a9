"""What a report says about heads: verdict, gate, tables, captions; sensible where nothing was localised, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mechicl.analyses.heads.drawings import drawings_of
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.pictures import confirmed_rows
from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Section
from mechicl.wording import number, p_value, percent, with_interval

FRAMES = {
    "heads": "one row a head: effect on either half, tests, what kind of head it is",
    "confirmed_effects": "one row a confirmed head and item",
    "curves": "faithfulness of the strongest heads",
    "random_sets": "random sets of heads",
    "attention": "what the confirmed heads attend to",
    "controls": "controls",
}
NAMED = 8  # heads that a sentence names
REPLACED_BY = {
    "interchange": "what the same head writes when the prime is in the other form",
    "mean": "its mean over pairs with other verbs and targets",
    "resample": "what it writes for the same target after another verb's prime",
    "zero": "zero",
}


def head_sections(head_maps: Sequence[HeadMap], paths: Sequence[pd.DataFrame | None] | None = None) -> list[Section]:
    """One section a head map, each with a name of its own; `paths`: of `paths_between_heads`, one frame a map."""
    given = [None] * len(head_maps) if not paths else list(paths)
    if len(given) != len(head_maps):
        raise ValueError(
            f"Got {len(given)} frames of paths for {len(head_maps)} head maps; expected one each, or none."
        )
    slugs: list[str] = []
    for head_map in head_maps:
        slug = "heads_" + "".join(letter if letter.isalnum() else "_" for letter in head_map.effect)
        slugs.append(slug if slug not in slugs else f"{slug}_{len(slugs) + 1}")
    return [_section(*parts) for parts in zip(head_maps, slugs, given, strict=True)]


def effect_words(head_map: HeadMap) -> str:
    """The effect as a sentence names it."""
    form = head_map.effect.removeprefix("ife_")
    known = {"priming": "structural priming", "ife": "the inverse frequency effect"}
    other = f"the inverse frequency effect on {form} primes" if form != head_map.effect else f"“{head_map.effect}”"
    return known.get(head_map.effect, other)


def _section(head_map: HeadMap, slug: str, paths: pd.DataFrame | None) -> Section:
    verdict, brief = _answer(head_map)
    words = [_gate_words(head_map)]
    if not head_map.heads.empty:
        words += [_replaced_words(head_map), _carriers(head_map)]
    return Section(
        slug=slug,
        question=f"Which heads drive {effect_words(head_map)}?",
        kind="yes" if head_map.confirmed else "none",
        verdict=verdict,
        brief=brief,
        sentence=head_map.verdict,
        paragraphs=[paragraph for paragraph in words if paragraph],
        tables=[table for table in (candidates_table(head_map), controls_table(head_map)) if table["rows"]],
        drawings=drawings_of(head_map, slug, paths),
        frames=_frames(head_map, slug, paths),
        results={slug: head_map},
        provenance=[(f"Heads, {head_map.effect}", _options(head_map))],
    )


def _frames(head_map: HeadMap, slug: str, paths: pd.DataFrame | None) -> dict[str, tuple[pd.DataFrame, str]]:
    found = {
        slug if name == "heads" else f"{slug}_{name}": (frame, words)
        for name, words in FRAMES.items()
        if len(frame := getattr(head_map, name))
    }
    if paths is not None and len(paths):
        found[f"{slug}_paths"] = paths, "paths between the confirmed heads, and to the output"
    return found


def _options(head_map: HeadMap) -> str:
    where = {"roles": "+".join(head_map.roles), "ablation": head_map.ablation}
    return option_words(where | head_map.provenance.seeds | head_map.provenance.options)


def _answer(head_map: HeadMap) -> tuple[str, str]:
    """The verdict in a few words, and one sentence."""
    if head_map.heads.empty:
        row = head_map.gate.iloc[0]
        size = f"{with_interval(row['estimate'], row['low'], row['high'])} {head_map.unit}"
        return "There is nothing to localise", f"The effect is {size}: its interval includes zero."
    n_tested = int(head_map.heads["candidate"].sum())
    if not head_map.confirmed:
        return (
            "None was confirmed",
            f"None of the {n_tested} strongest of {len(head_map.heads)} heads held on other pairs.",
        )
    rows = confirmed_rows(head_map)
    driving = rows["confirm_effect"] * head_map.gate["estimate"].iloc[0] < 0  # the effect shrinks without them
    for_it, against = rows.loc[driving, "name"].tolist(), rows.loc[~driving, "name"].tolist()
    parts = [f"{_listed(for_it)} drive{'s' * (len(for_it) == 1)} it"] if for_it else []
    parts += [f"{_listed(against)} work{'s' * (len(against) == 1)} against it"] if against else []
    verdict = f"{len(rows)} of {len(head_map.heads)} heads"
    return verdict, f"{'; '.join(parts)}. Chosen on one half of the pairs, confirmed on the other."


def _gate_words(head_map: HeadMap) -> str:
    row = head_map.gate.iloc[0]
    counts = f"{int(row['n_pairs']):,} pairs ({int(row['n_verbs'])} prime verbs, {int(row['n_targets']):,} targets)"
    if row["passed"]:
        return f"On all {counts} the interval of the effect excludes zero, so there is something to localise."
    return (
        f"On all {counts} the interval of the effect includes zero, so no head was replaced: ranking heads by their "
        "part in an effect that may not be there would rank noise. More verbs or targets may decide it."
    )


def _replaced_words(head_map: HeadMap) -> str:
    halves = head_map.verbs["split"].value_counts()
    verbs = " and ".join(f"{halves.get(half, 0)} prime verbs for {half}" for half in ("selection", "confirmation"))
    return (
        f"At {_places(head_map)} positions the output of each of the {len(head_map.heads)} heads was replaced, one at "
        f"a time, by {REPLACED_BY.get(head_map.ablation, head_map.ablation)}. A head that drives the effect moves it "
        f"towards zero or beyond when it is replaced. The two halves share no prime verb and no target: {verbs}."
    )


def _carriers(head_map: HeadMap) -> str:
    """Heads that know the verb's bias without being confirmed: decoding is not causing."""
    names = head_map.heads.loc[head_map.heads["carries_bias"].astype(bool), "name"].tolist()
    if not names:
        return ""
    heads = "1 other head" if len(names) == 1 else f"{len(names)} other heads"
    return (
        f"The bias of the prime's verb can be read off the output of {heads} ({_listed(names)}), not confirmed to "
        "drive the effect. That information is present does not show that it is used."
    )


def candidates_table(head_map: HeadMap) -> dict[str, Any]:
    """The heads that were tested twice, confirmed ones first."""
    slope = head_map.over == "slope"
    heads = ["Head", "Confirmed", "Selection", "Confirmation", "Share", "p (family)"]
    heads += ["Priming (nats)", "Effect / priming"] if slope else []
    heads += ["Induction", "Previous token"]
    rows = []
    for _, row in _candidates(head_map).iterrows():
        again = with_interval(*(row[f"confirm_{part}"] for part in ("effect", "low", "high")))
        cells = [str(row["name"]), "yes" if row["confirmed"] else "no", number(row["effect"]), again]
        cells += [percent(row["confirm_share"]), p_value(row["confirm_p"], name=False)]
        if slope:
            change = row["conditional"]
            cells += [number(row["d_priming"], 2), ("+" if change > 0 else "") + percent(change)]
        rows.append([*cells, *(number(row[kind], 2) for kind in ("induction", "previous_token"))])
    caption = (
        "The heads with the strongest changes on the selection half, tested anew on the confirmation half "
        f"(changes in {head_map.unit}). Share: of the change when all heads are replaced at once; below 0 the head "
        "works against the effect. p: corrected for all heads of this table. "
    )
    if slope:
        caption += (
            "Priming: change of mean priming. Effect / priming: relative change of their ratio, 0 for a head that "
            "merely scales priming. "
        )
    caption += "Induction and previous token: attention on repeated random tokens, 0 to 1."
    return {"caption": caption, "heads": heads, "rows": rows}


def controls_table(head_map: HeadMap) -> dict[str, Any]:
    """What chance, other pairs, unrelated text and a model without training give."""
    rows = [
        [
            _capital(str(row["control"]).replace("_", " ")),
            with_interval(row["estimate"], row["low"], row["high"]),
            str(row["quantity"]),
            _capital(str(row["what"])),
        ]
        for _, row in head_map.controls.iterrows()
    ]
    heads = ["Control", "Estimate", "Quantity", "What it is"]
    return {"caption": f"Controls. Effects in {head_map.unit}.", "heads": heads, "rows": rows, "words": True}


def _candidates(head_map: HeadMap) -> pd.DataFrame:
    if head_map.heads.empty:
        return head_map.heads
    rows = head_map.heads[head_map.heads["candidate"].astype(bool)]
    order = pd.DataFrame({"first": ~rows["confirmed"].astype(bool), "then": -rows["confirm_effect"].abs()})
    return rows.loc[order.sort_values(["first", "then"], kind="stable").index]


def _places(head_map: HeadMap) -> str:
    words = {"last": "the last shared"}
    return " and ".join(words.get(role, f"the {role.replace('.', chr(8217) + 's ')}") for role in head_map.roles)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
