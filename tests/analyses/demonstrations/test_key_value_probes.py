"""Probes from keys and values: scikit-learn on collected features as oracle, held-out rows, controls, and bad input."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from mechicl.analyses.demonstrations.gram_ridge import BlockGrams
from mechicl.analyses.demonstrations.probe_rows import ProbeRows, held_out_blocks, probe_targets
from mechicl.analyses.demonstrations.probes import KeyValueProbes, key_value_probes
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts
from mechicl.tasks.prompts import Prompt
from mechicl.wording import MINUS

OFFSETS = (-1, 0, 4)
QUICK: dict[str, Any] = {"offsets": OFFSETS, "n_folds": 2, "n_controls": 2, "n_boot": 200, "progress": False}


@pytest.fixture(scope="module")
def task() -> FewShotTask:
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file", "me")]
    frame = pd.DataFrame({"text": texts, "label": ["good" if i % 2 else "bad" for i in range(16)]})
    return FewShotTask("letters", frame, template="{text}\n{label}\n\n")


@pytest.fixture(scope="module")
def prompts(task: FewShotTask, tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(task, 4, 14, tokenizer=tiny_tokenizer, seed=0)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model("llama", 128).double()


@pytest.fixture(scope="module")
def found(model: Any, prompts: list[FewShotPrompt]) -> KeyValueProbes:
    return key_value_probes(model, prompts, seed=1, **QUICK)


def test_r2_equals_scikit_learn_on_collected_features(
    model: Any, prompts: list[FewShotPrompt], found: KeyValueProbes
) -> None:
    rng = np.random.default_rng(1)  # as key_value_probes draws: folds first, then controls
    blocks, train = held_out_blocks(prompts, 2, rng)
    targets = probe_targets(
        wrap(model), prompts, prediction="probability", n_controls=2, rng=rng, memory_budget=1 << 30
    )
    caches = []
    for one in prompts:
        with torch.no_grad():
            caches.append(model.run_with_cache(torch.tensor([one.prompt.tokens]))[1])
    for row in found.frame.itertuples():
        x, y, fold, which = [], [], [], ("prediction", "label").index(row.target)
        for i, one in enumerate(prompts):
            for demo in range(4):
                at = one.prompt.roles[f"demo[{demo}].label"][0] + row.offset
                if at < len(one.prompt):
                    states = caches[i][f"blocks.{row.layer}.attn.hook_{row.source[0]}"][0, at].reshape(2, 8)
                    x.append(states[row.head].numpy())
                    y.append(targets[i, demo, which])
                    fold.append(blocks[i, demo])
        features, wanted, own = np.array(x), np.array(y)[..., 0], np.array(fold)
        errors, totals = np.zeros(3), np.zeros(3)
        for block in range(4):
            fit, test = train[block][own], own == block
            said = Ridge(alpha=0.01).fit(features[fit], wanted[fit]).predict(features[test])
            errors += ((wanted[test] - said) ** 2).sum(0)
            totals += ((wanted[test] - wanted[fit].mean(0)) ** 2).sum(0)
        r2 = 1 - errors / totals
        assert row.n == len(features)
        assert row.r2 == pytest.approx(r2[0], rel=1e-8, abs=1e-8)
        assert row.control == pytest.approx(r2[1:].mean(), rel=1e-8, abs=1e-8)
        assert row.low <= row.r2 <= row.high


def test_held_out_errors_from_sums_equal_those_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    x, y, block = rng.normal(size=(60, 2, 5)) + 3, rng.normal(size=(60, 3)), np.arange(60) % 4
    grams = BlockGrams(1, 4, 2, 5, 3)
    for rows in np.array_split(rng.permutation(60), 7):  # rows may come in any order, in parts
        for b in range(4):
            chosen = rows[block[rows] == b]
            grams.add(0, b, x[chosen], y[chosen])
    train = ~np.eye(4, dtype=bool)
    fitted = grams.fit(train, 0.5)
    errors, totals = grams.held_out(fitted)
    for b in range(4):
        fit, test = block != b, block == b
        for head in range(2):
            ridge = Ridge(alpha=0.5).fit(x[fit, head], y[fit])
            np.testing.assert_allclose(fitted.weights[0, b, head], ridge.coef_.T, atol=1e-10)
            np.testing.assert_allclose(fitted.intercept[0, b, head], ridge.intercept_, atol=1e-10)
            own = ((y[test] - ridge.predict(x[test, head])) ** 2).sum(0)
            np.testing.assert_allclose(errors[0, b, head], own, rtol=1e-9)
        np.testing.assert_allclose(totals[0, b], ((y[test] - y[fit].mean(0)) ** 2).sum(0), rtol=1e-9)
    alone = grams.fit(np.eye(4, dtype=bool) & False, 0.5)  # nothing trains: nothing is known
    assert np.isnan(alone.mean).all()


def test_no_prompt_and_no_text_is_on_both_sides(prompts: list[FewShotPrompt]) -> None:
    blocks, train = held_out_blocks(prompts, 3, np.random.default_rng(0))
    assert train.sum() == 9 * 4 and set(blocks.ravel()) <= set(range(9))
    for block in range(9):
        test = np.argwhere(blocks == block)
        fit = np.argwhere(train[block][blocks])
        assert not {prompts[i].query for i, _ in test} & {prompts[i].query for i, _ in fit}
        assert not {prompts[i].demos[d] for i, d in test} & {prompts[i].demos[d] for i, d in fit}


def test_targets_are_the_model_alone_and_controls_permute_within_prompts(
    model: Any, prompts: list[FewShotPrompt]
) -> None:
    made = [
        probe_targets(wrap(model), prompts, prediction=how, n_controls=3, rng=np.random.default_rng(0),
                      memory_budget=1 << 30)
        for how in ("probability", "argmax")
    ]  # fmt: skip
    targets, hard = made
    assert targets.shape == (14, 4, 2, 4, 1)
    one = prompts[3]
    example = one.examples[2]
    text = example.tokens[: example.roles["label"][0]]
    odds = label_log_probs(wrap(model), [Prompt(text, {})], [list(one.label_tokens)])[0]
    assert targets[3, 2, 0, 0, 0] == pytest.approx(1 / (1 + np.exp(odds[0] - odds[1])))
    assert hard[3, 2, 0, 0, 0] == float(odds[1] > odds[0])
    assert targets[3, 2, 1, 0, 0] == float(one.demo_labels[2] == one.labels[1])
    np.testing.assert_allclose(np.sort(targets, axis=1), np.sort(targets[:, :, :, :1].repeat(4, 3), axis=1))
    assert np.abs(targets[:, :, :, 1:] - targets[:, :, :, :1]).max() > 0.5


def test_what_labels_alone_tell_of_predictions_is_a_regression_on_them(
    model: Any, prompts: list[FewShotPrompt], found: KeyValueProbes
) -> None:
    rng = np.random.default_rng(1)
    blocks, train = held_out_blocks(prompts, 2, rng)
    targets = probe_targets(
        wrap(model), prompts, prediction="probability", n_controls=2, rng=rng, memory_budget=1 << 30
    )
    said, shown, own = targets[:, :, 0, 0].reshape(-1, 1), targets[:, :, 1, 0].reshape(-1, 1), blocks.ravel()
    errors = totals = 0.0
    for block in range(4):
        fit, test = train[block][own], own == block
        ridge = Ridge(alpha=1e-9).fit(shown[fit], said[fit])
        errors += ((said[test] - ridge.predict(shown[test]).reshape(-1, 1)) ** 2).sum()
        totals += ((said[test] - said[fit].mean(0)) ** 2).sum()
    rows = found.frame[(found.frame["offset"] == 0) & (found.frame["target"] == "prediction")]
    np.testing.assert_allclose(rows["from_labels"], 1 - errors / totals, atol=1e-6)
    assert found.frame.loc[found.frame["target"] == "label", "from_labels"].isna().all()


def test_values_at_the_label_know_it_and_before_it_they_do_not(found: KeyValueProbes) -> None:
    label = found.frame[(found.frame["target"] == "label") & (found.frame["layer"] == 0)].set_index(
        ["source", "offset"]
    )
    assert label.loc[("value", 0), "r2"].min() > 0.98  # the embedding of the label itself
    assert label.loc[("value", -1), "r2"].max() < 0.1  # the line break before it: the same in every text
    best = found.best()
    assert len(best) == 2 * 2 * 3 and best["r2"].max() > 0.98


def test_offsets_outside_the_prompt_are_left_out(prompts: list[FewShotPrompt]) -> None:
    one = prompts[0]
    start = one.prompt.roles["demo[3].label"][0]
    far = len(one.prompt) - start  # one step beyond the end for the last demonstration, inside for the others
    rows = ProbeRows.of([one], [0, far], np.zeros((1, 4), dtype=int), np.zeros((1, 4, 1)))
    assert np.bincount(rows.group).tolist() == [4, 3]
    assert all(0 <= at < len(one.prompt) for _, at in rows.places)


def test_layers_in_turns_and_small_batches_give_the_same(
    model: Any, prompts: list[FewShotPrompt], found: KeyValueProbes, tmp_path: Any
) -> None:
    before = wrap(model).checksum()
    again = key_value_probes(model, prompts, seed=1, memory_budget=1, **QUICK)  # one layer and one prompt a pass
    pd.testing.assert_frame_equal(again.frame, found.frame, atol=1e-8)
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()
    assert KeyValueProbes.load(found.save(tmp_path / "probes")) == found


def test_what_does_not_vary_is_named(model: Any, prompts: list[FewShotPrompt]) -> None:
    same = [replace(one, demo_labels=("good",) * 4) for one in prompts]
    found = key_value_probes(model, same, **QUICK)
    assert any("label is the same" in note for note in found.notes)
    rows = found.frame["target"] == "label"
    assert found.frame.loc[rows, "r2"].isna().all() and found.frame.loc[~rows, "r2"].notna().all()


def test_pictures(found: KeyValueProbes) -> None:
    from mechicl.views.probes import plot_key_value_probes

    ax = found.plot()
    lines = [line for line in ax.lines if not line.get_label().startswith("_") and len(line.get_xdata()) == 3]
    assert [line.get_label() for line in lines] == ["0: the label's first token", f"{MINUS}1: the token before", "+4"]
    rows = found.frame.query("source == 'value' and target == 'label' and offset == 0")
    np.testing.assert_allclose(lines[0].get_ydata(), rows.groupby("layer")["r2"].mean())
    with pytest.raises(ValueError, match="key or value"):
        plot_key_value_probes(found, source="query")


def test_bad_input(model: Any, prompts: list[FewShotPrompt]) -> None:
    for options, words in [
        ({"prediction": "logits"}, "argmax"), ({"offsets": (0, 0)}, "different"), ({"penalty": 0.0}, "penalty"),
        ({"n_controls": 0}, "n_controls"), ({"n_folds": 15}, "fewer folds"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            key_value_probes(model, prompts, **{**QUICK, **options})
    strange = [replace(prompts[0], demo_labels=("good", "bad", "good", "fine")), *prompts[1:]]
    with pytest.raises(ValueError, match="'fine'"):
        key_value_probes(model, strange, **QUICK)
    strange = [replace(prompts[0], label_tokens=((7,), (8,))), *prompts[1:]]
    with pytest.raises(ValueError, match="one task"):
        key_value_probes(model, strange, **QUICK)
