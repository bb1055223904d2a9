"""Sizes of updates: equal to plain runs one text at a time, 0 where nothing is read, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.analyses.gradient.update_sizes import UpdateSizes, crossed_rows, measure_update_sizes
from mechicl.hooks.wrapper import wrap
from mechicl.organisms import load_organism
from mechicl.organisms.planted_truth import Planted
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import tokenize
from mechicl.tasks.speaker_pairs import speaker_corpus


@pytest.fixture(scope="module")
def speakers() -> PrimingCorpus:
    return speaker_corpus(targets_per_verb=1, verbs=["gave", "sold", "sent", "showed"], seed=2)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_organism("delta-medium", dtype="float64")


def state(model: Any, corpus: PrimingCorpus, row: int, context: str, layer: int) -> tuple[np.ndarray, ...]:
    """By hand: the residual stream at the target's verb, and what all heads write there by looking at the prime."""
    wrapped, text = wrap(model), corpus.prime_target(row, context, "PD")
    prompt = tokenize(text, model.tokenizer, prepend_bos=True)
    end = prompt.roles["target.verb"][1]
    tokens, found = torch.tensor([prompt.tokens[:end]]), {}
    hooks = [
        (name, layer, lambda x, n=name: found.__setitem__(n, x[0].clone())) for name in ("resid_post", "pattern", "v")
    ]
    with wrapped.evaluating(), wrapped.hooked(hooks):
        model(tokens)
    written = torch.zeros(wrapped.d_model, dtype=torch.float64)
    if context != "unprimed":
        inside = torch.zeros(end, dtype=torch.bool)
        inside[slice(*prompt.roles["prime"])] = True
        for head in range(wrapped.n_heads):
            a, v = found["pattern"][head, -1], found["v"].reshape(end, wrapped.n_kv_heads, -1)
            own = v[:, head // (wrapped.n_heads // wrapped.n_kv_heads)]
            left = a * ~inside
            without = left @ own / left.sum() * a.sum()
            written = written + (a @ own - without) @ wrapped.W_O(layer)[head].detach()
    return found["resid_post"][-1].numpy(), written.numpy()


def test_sizes_are_those_of_plain_runs(model: Any, speakers: PrimingCorpus) -> None:
    rows = [0, 3, 7]
    found = measure_update_sizes(model, speakers, rows=rows, progress=False)
    assert found.baseline == "neutral" and found.rows["row"].tolist() == rows
    for i, row in enumerate(rows):
        for layer in (0, 2):
            neutral, by_neutral = state(model, speakers, row, "neutral", layer)
            alone, _ = state(model, speakers, row, "unprimed", layer)
            for f, form in enumerate(("PD", "DO")):
                after, written = state(model, speakers, row, form, layer)
                norm = np.linalg.norm(neutral)
                expected = np.linalg.norm(after - neutral) / norm, np.linalg.norm(written) / norm
                got = [found.sizes[kind][i, f, layer] for kind in ("residual", "attention")]
                np.testing.assert_allclose(got, expected, rtol=1e-10)
            expected = np.linalg.norm(neutral - alone), np.linalg.norm(by_neutral)
            got = [found.placebo[kind][i, layer] for kind in ("residual", "attention")]
            np.testing.assert_allclose(got, np.array(expected) / np.linalg.norm(alone), rtol=1e-10)


def test_heads_that_write_nothing_make_no_update(planted: Callable[..., Planted]) -> None:
    null, ife = (measure_update_sizes(planted(kind).model, planted(kind).corpus, n_pairs=20, progress=False)
                 for kind in ("null", "ife"))  # fmt: skip
    assert null.sizes["attention"][..., 1].max() < 1e-6  # the upper layer, where the planted heads are
    assert ife.sizes["attention"][..., 1].mean() > 1e-3


def test_without_neutral_primes_the_target_alone_is_the_baseline(model: Any, speakers: PrimingCorpus) -> None:
    bare = replace(speakers, sentences=speakers.sentences.assign(neutral=None), spans=speakers.spans[
        speakers.spans["form"] != "neutral"])  # fmt: skip
    found = measure_update_sizes(model, bare, rows=[1], progress=False)
    assert found.baseline == "unprimed" and found.placebo == {}
    after, alone = (state(model, bare, 1, context, 1)[0] for context in ("DO", "unprimed"))
    expected = np.linalg.norm(after - alone) / np.linalg.norm(alone)
    np.testing.assert_allclose(found.sizes["residual"][0, 1, 1], expected, rtol=1e-10)
    one = speakers.pairs["prime"][0]
    some = replace(speakers, sentences=speakers.sentences.assign(
        neutral=speakers.sentences["neutral"].where(speakers.sentences["sentence"] != one)
    ), spans=speakers.spans[(speakers.spans["form"] != "neutral") | (speakers.spans["sentence"] != one)])  # fmt: skip
    kept = measure_update_sizes(model, some, progress=False)
    assert one not in set(kept.rows["prime"]) and kept.baseline == "neutral" and 0 < len(kept.rows) < len(some)
    with pytest.raises(ValueError, match="none of these pairs has a neutral prime"):
        measure_update_sizes(model, some, rows=[0], progress=False)


def test_rows_are_drawn_as_whole_targets() -> None:
    corpus = speaker_corpus(targets_per_verb=3, seed=1)
    frame = corpus.to_frame()
    rows = crossed_rows(frame, 63, seed=4)
    chosen = frame.iloc[rows]
    assert chosen["target"].nunique() == 3 and (chosen.groupby("target").size() == 21).all()
    assert chosen["target_verb"].nunique() == 3  # the targets' verbs take turns
    assert np.ptp(chosen.groupby("prime_verb").size()) <= 1
    np.testing.assert_array_equal(rows, crossed_rows(frame, 63, seed=4))
    assert set(rows) != set(crossed_rows(frame, 63, seed=5))
    np.testing.assert_array_equal(crossed_rows(frame, len(frame)), np.arange(len(frame)))
    with pytest.raises(ValueError, match="expected 1 to"):
        crossed_rows(frame, len(frame) + 1)


def test_frames_kinds_and_pictures(model: Any, speakers: PrimingCorpus, tmp_path: Any) -> None:
    found = measure_update_sizes(model, speakers, progress=False)
    frame = found.to_frame()
    assert len(frame) == 2 * len(speakers) and frame["form"].tolist()[:: len(speakers)] == ["PD", "DO"]
    np.testing.assert_allclose(frame["residual"][: len(speakers)], found.sizes["residual"][:, 0].mean(-1))
    assert UpdateSizes.load(found.save(tmp_path / "sizes")) == found
    more = found.with_kind("mlp", 2 * found.sizes["residual"], found.placebo["residual"])
    assert list(more.sizes) == ["residual", "attention", "mlp"] and list(found.sizes) == ["residual", "attention"]
    np.testing.assert_allclose(more.to_frame()["mlp"], 2 * frame["residual"])
    assert more.plot().has_data()
    with pytest.raises(ValueError, match="expected 12 rows, 2 forms"):
        found.with_kind("mlp", found.sizes["residual"][:3])
    with pytest.raises(ValueError, match="expected numbers from 0 to 11"):
        measure_update_sizes(model, speakers, rows=[12], progress=False)
