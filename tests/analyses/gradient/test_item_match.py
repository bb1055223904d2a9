"""Agreement item by item: equal to a plain computation, found where it is planted, and only there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from mechicl.analyses.finetuning import FinetunedPriming, finetune_on_primes
from mechicl.analyses.gradient.item_match import LEVELS, ItemMatch, _match, match_items
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.organisms.shipped import load_organism
from mechicl.provenance import Provenance
from mechicl.tasks.speaker_pairs import speaker_corpus

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # tiny samples: BCa may be undefined
VERBS, TARGETS = 8, 9


def results(
    context: dict[str, np.ndarray], gradient: dict[str, np.ndarray], seed: int = 0, neutral: bool = True, **facts: Any
) -> tuple[PrimingResult, FinetunedPriming]:
    """Results whose items have these effects, verb by target and form; NaN: the two never meet."""
    rng = np.random.default_rng(seed)
    known = np.argwhere(np.isfinite(context["PD"]))
    verb, target = known[rng.permutation(len(known))].T
    keys = pd.DataFrame({"prime": [f"p{v}.{t}" for v, t in zip(verb, target, strict=True)], "target": target,
                         "prime_verb": verb})  # fmt: skip
    keys = keys.assign(target="t" + keys["target"].astype(str), prime_verb="v" + keys["prime_verb"].astype(str))
    empty = pd.DataFrame()
    provenance = Provenance.of({"weights_sha256": "a"} | facts)
    frames = []
    for effects in (context, gradient):
        base = rng.normal(size=len(keys))
        frames.append(
            keys.assign(
                L_PD=base + effects["PD"][verb, target], L_DO=base - effects["DO"][verb, target],
                L_neutral=base if neutral else np.nan, L_unprimed=base + rng.normal(size=len(keys)) * neutral,
            )
        )  # fmt: skip
    made = [PrimingResult(("PD", "DO"), "made up", 0.95, items, empty, empty, empty, empty, provenance)
            for items in frames]  # fmt: skip
    training = pd.DataFrame({"prime": ["p"], "context": ["PD"], "loss_before": [2.0], "loss_after": [1.0]})
    return made[0], FinetunedPriming(made[1], training, 0.1, 1, "sgd", "all", 0, provenance)


def effects(seed: int, verb: float = 1.0, target: float = 1.0, cell: float = 1.0, shape: Any = (VERBS, TARGETS)) -> Any:
    """Independent verb, target and cell parts of these standard deviations."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(shape[0], 1)), rng.normal(size=shape[1]), rng.normal(size=shape)
    return SimpleNamespace(verb=verb * parts[0], target=target * parts[1], cell=cell * parts[2])


def total(parts: Any) -> np.ndarray:
    return parts.verb + parts.target + parts.cell


def naive(items: pd.DataFrame, form: str) -> dict[str, tuple[float, float, float]]:
    """r, and both standard deviations, of every level, by pandas and statsmodels."""
    own = items[items["form"] == form].copy()
    found = {}
    columns = ["context_effect", "gradient_effect"]
    levels = {"items": own[columns], "within targets": own[columns] - own.groupby("target")[columns].transform("mean")}
    fits = [smf.ols(f"{column} ~ C(prime_verb) + C(target)", own).fit() for column in columns]
    levels["beyond verb and target"] = pd.concat([fit.resid for fit in fits], axis=1)
    verbs = sorted(own["prime_verb"].unique())
    levels["between verbs"] = pd.DataFrame(
        [[fit.params.get(f"C(prime_verb)[T.{verb}]", 0.0) for fit in fits] for verb in verbs]
    )
    for name, values in levels.items():
        values = values.to_numpy()
        found[name] = (np.corrcoef(values.T)[0, 1], *values.std(0))
    return found


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("baseline", ["neutral", "unprimed"])
def test_every_level_equals_a_plain_computation(missing: bool, baseline: str) -> None:
    made = [{form: total(effects(seed + i)) for i, form in enumerate(("PD", "DO"))} for seed in (0, 5)]
    made[1] = {form: made[1][form] + 0.5 * made[0][form] for form in made[0]}
    if missing:  # as in a corpus where prime and target never share a verb
        gone = np.random.default_rng(1).random((VERBS, TARGETS)) < 0.3
        for effect in (e for both in made for e in both.values()):
            effect[gone] = np.nan
    found = match_items(*results(*made), baseline=baseline, n_boot=200)
    assert found.baseline == baseline and list(found.matches["level"]) == [*LEVELS] * 2
    for form in ("PD", "DO"):
        own = found.items[found.items["form"] == form]
        assert len(own) == np.isfinite(made[0][form]).sum()
        if baseline == "neutral":
            at = own["prime_verb"].str[1:].astype(int), own["target"].str[1:].astype(int)
            for column, effect in (("context_effect", made[0][form]), ("gradient_effect", made[1][form])):
                np.testing.assert_allclose(own[column], effect[at], atol=1e-12)
        rows = found.matches[found.matches["form"] == form].set_index("level")
        for name, (r, *spreads) in naive(found.items, form).items():
            row = rows.loc[name]
            assert row["r"] == pytest.approx(r, abs=1e-9)
            assert [row["context_sd"], row["gradient_sd"]] == pytest.approx(spreads, abs=1e-9)
            assert row["low"] < row["r"] < row["high"] and row["n_verbs"] == VERBS
            assert row["difference"] == pytest.approx(row["r"] - row["chance"])
            assert row["n_items"] == (VERBS if name == "between verbs" else len(own))


def test_chance_and_p_are_those_of_a_loop_over_permutations() -> None:
    made = [{form: total(effects(seed)) for form in ("PD", "DO")} for seed in (0, 5)]
    row = match_items(*results(*made), n_boot=300, seed=4).matches.iloc[1]
    assert (row["form"], row["level"]) == ("PD", "within targets")
    first, second = ({"v" + str(i): e[i] - e.mean(0) for i in range(VERBS)} for e in (made[0]["PD"], made[1]["PD"]))
    rng, found = np.random.default_rng(4), []
    for _ in range(300):
        order = rng.permutation(VERBS)
        pairs = [(first[f"v{i}"], second[f"v{j}"]) for i, j in enumerate(order)]
        found.append(np.corrcoef(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))[0, 1])
    values = np.array(found)
    assert row["chance"] == pytest.approx(values.mean())
    more = np.abs(values - values.mean()) >= abs(row["r"] - values.mean())
    assert row["p"] == pytest.approx((1 + more.sum()) / 301)


def test_agreement_is_found_at_the_level_where_it_is_planted() -> None:
    shape = (20, 16)
    for part in ("verb", "cell", "target"):
        one, other = effects(3, shape=shape), effects(4, shape=shape)
        setattr(other, part, getattr(one, part))  # shared; the other two parts are independent
        both = [{"PD": total(parts), "DO": total(parts)} for parts in (one, other)]
        rows = match_items(*results(*both), n_boot=300).matches.set_index(["form", "level"]).loc["PD"]
        r, p = rows["r"], rows["p_holm"]
        if part == "verb":
            assert r["between verbs"] > 0.9 and p["between verbs"] < 0.05
            assert abs(r["beyond verb and target"]) < 0.2 < rows.loc["within targets", "r"]
        elif part == "cell":
            assert r["beyond verb and target"] > 0.99 and p["beyond verb and target"] < 0.05
            assert p["between verbs"] > 0.05
        else:
            # What every prime does to a target is agreement of items, but not of primes with themselves.
            assert rows.loc["items", "chance"] > 0.2 and abs(rows.loc["within targets", "chance"]) < 0.03
            assert abs(rows.loc["items", "difference"]) < 0.1 and (p > 0.05).all()


def test_p_is_calibrated_where_effects_share_no_more_than_targets() -> None:
    draws = 100
    small = {name: 0 for name in LEVELS}
    for draw in range(draws):
        one, other = effects(2 * draw, shape=(10, 6)), effects(2 * draw + 1, shape=(10, 6))
        cells = [total(one), other.verb + one.target + other.cell]
        for name in LEVELS:
            small[name] += _match(cells, name, 100, 0.95, draw)["p"] < 0.05
    assert all(count <= 13 for count in small.values()), small  # binomial, 100 draws of .05: 13 has p < .001
    assert sum(small.values()) >= 4  # and not conservative: 20 are expected


def test_organisms_agree_between_verbs_where_context_is_error_driven() -> None:
    corpus = speaker_corpus(targets_per_verb=2, primes_per_target=8, seed=1)
    found = {}
    for name in ("delta-medium", "boost-medium"):
        model = load_organism(name, device="cpu")
        context = measure_priming(model, corpus, n_boot=200, progress=False)
        tuned = finetune_on_primes(model, corpus, learning_rate=0.03, n_boot=200, progress=False)
        found[name] = match_items(context, tuned, n_boot=300).matches.set_index(["level", "form"]).loc["between verbs"]
    assert (found["delta-medium"]["r"] > 0.9).all() and (found["delta-medium"]["p"] < 0.01).all()
    assert (found["delta-medium"]["context_sd"] > 0.3).all()
    # A context effect that does not vary has nothing to agree with, whatever r.
    assert (found["boost-medium"]["context_sd"] < 0.005).all() and (found["boost-medium"]["gradient_sd"] > 0.02).all()


@pytest.fixture
def pair() -> tuple[PrimingResult, FinetunedPriming]:
    return results(*[{form: total(effects(seed)) for form in ("PD", "DO")} for seed in (0, 5)])


def test_the_result_saves_repeats_and_draws(pair: Any, tmp_path: Path) -> None:
    found = match_items(*pair, n_boot=200, seed=3)
    assert found.matches.equals(match_items(*pair, n_boot=200, seed=3).matches)
    assert not found.matches["low"].equals(match_items(*pair, n_boot=200, seed=4).matches["low"])
    found.save(tmp_path / "match")
    again = ItemMatch.load(tmp_path / "match")
    assert again.matches.equals(found.matches) and again.items.equals(found.items)
    assert found.to_frame().equals(found.matches) and found.plot().get_ylabel()
    rows = found.matches
    assert (rows["p_holm"] >= rows["p"]).all() and rows["p_holm"].min() >= min(8 * rows["p"].min(), 1) - 1e-12


def changed(pair: Any, which: int, change: Callable[[PrimingResult], PrimingResult]) -> Any:
    context, tuned = pair
    return (change(context), tuned) if which == 0 else (context, replace(tuned, priming=change(tuned.priming)))


def test_what_cannot_be_matched_is_refused(pair: Any) -> None:
    other = changed(pair, 1, lambda p: replace(p, items=p.items.iloc[::-1]))
    with pytest.raises(ValueError, match="of different corpora"):
        match_items(*other)
    with pytest.raises(ValueError, match="of different models"):
        match_items(replace(pair[0], provenance=Provenance.of({"weights_sha256": "b"})), pair[1])
    for baseline, neutral in (("primed", True), ("neutral", False)):
        with pytest.raises(ValueError, match=f"got baseline='{baseline}'; expected 'unprimed', or 'neutral'"):
            match_items(*results(*[{f: total(effects(s)) for f in ("PD", "DO")} for s in (0, 5)], neutral=neutral),
                        baseline=baseline)  # fmt: skip
    few = [{form: total(effects(seed, shape=(3, 5))) for form in ("PD", "DO")} for seed in (0, 5)]
    with pytest.raises(ValueError, match="3 verbs prime; at least 4"):
        match_items(*results(*few))
    still = changed(pair, 0, lambda p: replace(p, items=p.items.assign(L_PD=p.items["L_neutral"])))
    with pytest.raises(ValueError, match="the context effects of PD primes do not vary"):
        match_items(*still)


def test_without_neutral_primes_the_baseline_is_no_prime() -> None:
    made = [{form: total(effects(seed)) for form in ("PD", "DO")} for seed in (0, 5)]
    assert match_items(*results(*made, neutral=False), n_boot=200).baseline == "unprimed"
    assert match_items(*results(*made), n_boot=200).baseline == "neutral"


def test_a_level_at_which_nothing_varies_is_not_correlated() -> None:
    """Effects that are sums of a verb's and a target's part leave rounding errors beyond these."""
    made = [{form: total(effects(seed, cell=cell)) for form in ("PD", "DO")} for seed, cell in ((0, 0.0), (5, 1.0))]
    rows = match_items(*results(*made), n_boot=200).matches.set_index(["form", "level"]).loc["PD"]
    assert np.isnan(rows.loc["beyond verb and target", "r"]) and np.isnan(rows.loc["beyond verb and target", "p"])
    assert rows.loc[["items", "within targets", "between verbs"], "r"].notna().all()


def test_verbs_that_met_no_common_targets_are_refused() -> None:
    made = [{form: total(effects(seed)) for form in ("PD", "DO")} for seed in (0, 5)]
    for both in made:
        for effect in both.values():
            effect[:4, 5:] = effect[4:, :5] = np.nan  # two corpora that share nothing: no verb means to be compared
    with pytest.raises(ValueError, match="targets"):
        match_items(*results(*made), n_boot=200)
