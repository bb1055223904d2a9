"""Localisations are kept, repeated and gone on with; the model stays as it was; bad input is refused."""

import numpy as np
import pytest
import torch

from mechicl import results
from mechicl.analyses.functionals import Functional
from mechicl.analyses.head_localization import localize_heads
from mechicl.analyses.heads.map import HeadMap
from mechicl.hooks import patching, scoring
from mechicl.hooks.wrapper import WrappedModel, wrap

QUICK = {"n_items": 24, "n_random": 2, "n_boot": 200, "n_permutations": 500, "untrained": False, "progress": False}


@pytest.mark.parametrize(("kind", "effect"), [("decoys", "ife"), ("null", "priming")])
def test_a_map_is_kept_bit_for_bit(kind, effect, localized, tmp_path) -> None:
    found = localized(kind, effect)
    found.save(tmp_path / "map")
    assert HeadMap.load(tmp_path / "map") == found == results.load(tmp_path / "map")
    assert HeadMap.load(tmp_path / "map").confirmed == found.confirmed


def same(one: HeadMap, other: HeadMap) -> bool:
    tables = ("gate", "heads", "confirmed_effects", "curves", "random_sets", "attention", "controls", "verbs")
    return one.verdict == other.verdict and all(getattr(one, t).equals(getattr(other, t)) for t in tables)


def test_the_seed_decides(planted, primed, localized) -> None:
    made = planted("priming")
    again = localize_heads(made.model, made.corpus, "priming", **{**QUICK, "n_permutations": 1_000})
    first = localized("priming", "priming")
    for table in ("heads", "confirmed_effects", "curves", "random_sets", "attention", "controls", "verbs"):
        one, other = getattr(again, table), getattr(first, table)
        assert one.select_dtypes(exclude="number").equals(other.select_dtypes(exclude="number")), table
        np.testing.assert_allclose(one.select_dtypes("number"), other.select_dtypes("number"), atol=2e-5)
    turned = localize_heads(made.model, made.corpus, "priming", primed=primed("priming"), seed=1, **QUICK)
    assert set(turned.verbs["verb"][turned.verbs["split"] == "selection"]) != set(
        first.verbs["verb"][first.verbs["split"] == "selection"]
    )
    assert turned.confirmed == first.confirmed


def test_a_store_goes_on_where_it_was(planted, tmp_path, monkeypatch) -> None:
    """The second call reads; nothing of the corpus is scored or patched again."""
    made = planted("priming")
    options = {**QUICK, "store": tmp_path}
    swept: list[tuple[str, ...]] = []
    run = patching.sweep

    def counted(wrapped, plan, todo, finish, *, cached):
        if len(swept) == 3 and not swept.count("stopped"):
            swept.append("stopped")
            raise KeyboardInterrupt
        swept.append(plan.roles[0])
        return run(wrapped, plan, todo, finish, cached=cached)

    monkeypatch.setattr(patching, "sweep", counted)
    with pytest.raises(KeyboardInterrupt):
        localize_heads(made.model, made.corpus, "priming", **options)
    assert swept == ["target"] * 3 + ["stopped"]
    first = localize_heads(made.model, made.corpus, "priming", **options)
    assert swept.count("target") > 3
    stopped_at = swept.count("target")
    monkeypatch.setattr(scoring, "_run", lambda *_, **__: pytest.fail("scored again"))
    second = localize_heads(made.model, made.corpus, "priming", **options)
    assert swept.count("target") == stopped_at  # unrelated texts alone are patched again
    assert same(first, second)


def test_the_model_is_left_as_it_was(planted, primed) -> None:
    made = planted("decoys")
    wrapped: WrappedModel = wrap(made.model)
    made.model.train()
    before, state = wrapped.checksum(), torch.get_rng_state()
    try:
        localize_heads(made.model, made.corpus, "ife", primed=primed("decoys"), **{**QUICK, "untrained": True})
        assert made.model.training
    finally:
        made.model.eval()
    assert wrapped.checksum() == before and not wrapped.has_hooks() and torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in made.model.parameters())


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effect": "syntax"}, "unknown effect 'syntax'; expected one of priming, ife, ife_PD, ife_DO"),
        ({"effect": Functional("x", {"passive": 1.0}, "mean")}, r"got the contexts \['passive'\]"),
        ({"scale": "bits"}, "scale='bits', expected one of nats, probability"),
        ({"ablation": "none"}, "ablation='none', expected one of interchange, mean, resample, zero"),
        ({"roles": "target"}, "roles='target', expected a list of some of: last, prime"),
        ({"roles": ()}, r"roles=\(\), expected a list"),
        ({"roles": ("target.object",)}, r"expected a list of some of: .*target\.theme"),
        ({"n_items": 0}, "got n_items=0"),
        ({"n_candidates": 0}, "n_candidates=0"),
        ({"n_random": -1}, "n_random=-1"),
        ({"level": 95.0}, "level=95.0"),
        ({"n_boot": 3}, "n_boot=3"),
    ],
)
def test_bad_input_is_refused_before_any_pass(options, message, planted, monkeypatch) -> None:
    made = planted("ife")
    if "n_boot" not in options:
        monkeypatch.setattr(WrappedModel, "logits", lambda *_: pytest.fail("a forward pass"))
    with pytest.raises(ValueError, match=message):
        localize_heads(made.model, made.corpus, **{**QUICK, **options})


def test_bad_corpora_are_refused(planted, primed) -> None:
    made = planted("ife")
    with pytest.raises(ValueError, match=r"level=95\.0"):
        localize_heads(made.model, made.corpus, "ife", primed=primed("ife"), **QUICK, level=95.0)
    few = made.corpus.where(made.corpus.to_frame()["prime_verb"].isin(made.corpus.verbs[:5]))
    with pytest.raises(ValueError, match="half of the corpus has 3 prime verbs, expected at least 4"):
        localize_heads(made.model, few, "ife", **QUICK)
    with pytest.raises(ValueError, match="primed is of another corpus"):
        localize_heads(made.model, few, "ife", primed=primed("ife"), **QUICK)
    with pytest.raises(ValueError, match=r"has no role 'prime\.theme'"):  # a neutral prime has no theme
        localize_heads(made.model, made.corpus, "ife", primed=primed("ife"), roles=("prime.theme",), **QUICK)
