"""Steps over the context are the differences of the updates themselves; shuffling changes nothing where it cannot."""

import numpy as np
import pytest
import torch

from mechicl.analyses.updates.update_trajectory import (
    UpdateTrajectory,
    difference_norms,
    measure_update_trajectory,
)
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates
from mechicl.hooks.wrapper import wrap

CONTEXTS = [[7, 9, 20, 31, 100], [50, 60, 70]]
QUERIES = [[100, 200], [30]]


@pytest.fixture(scope="module")
def found(tiny_model) -> UpdateTrajectory:
    return measure_update_trajectory(tiny_model("llama"), CONTEXTS, QUERIES, n_boot=100, seed=1)


def test_norms_of_differences_need_no_matrix():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, n, generator=draw, dtype=torch.float64) for n in (5, 4))
    outer = torch.einsum("im,id->imd", a, b)
    torch.testing.assert_close(difference_norms(a, b), (outer[1:] - outer[:-1]).flatten(1).norm(dim=-1))
    near = torch.stack([a[0], a[0] * (1 + 1e-12)])  # where subtracting squares would leave nothing
    expected = 1e-12 * a[0].norm() * b[0].norm()
    torch.testing.assert_close(difference_norms(near, b[:1].expand(2, -1))[0], expected, rtol=1e-3, atol=0)
    assert difference_norms(a[:1].expand(2, -1), b[:1].expand(2, -1)) == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_steps_are_those_between_the_updates_of_prefixes(tiny_model, kind):
    model = tiny_model(kind).to(torch.float64)
    wrapped = wrap(model)
    steps = measure_update_trajectory(model, CONTEXTS[:1], QUERIES[:1], n_boot=100).steps
    steps = steps[steps["order"] == "own"].set_index(["position", "layer", "matrix"])
    parts, before = find_mlps(wrapped), None
    for stop in (2, 3):
        whole = (0, *CONTEXTS[0][:stop], *QUERIES[0])
        updates, _, _ = build_updates(wrapped, parts, [whole], [(0, *QUERIES[0])])
        made = [
            [torch.outer(left[0], own.right[0]) for left in own.left]
            + [own.rest[0] if own.hidden is None else torch.outer(own.hidden[0], own.rest[0])]
            for own in updates
        ]
        for part, now, then in zip(parts, made, before or made, strict=True):
            for name, x, y in zip((*part.matrices, part.rest_name), now, then, strict=True):
                row = steps.loc[(stop, part.layer, name)]
                assert row["norm"] == pytest.approx(float(x.norm()), rel=1e-6)
                size = part.size(name) or np.nan  # the biases of a new model are 0
                assert row["relative"] == pytest.approx(row["step"] / size, nan_ok=True)
                if before is not None:
                    assert row["step"] == pytest.approx(float((x - y).norm()), rel=1e-6)
        before = made


def test_the_first_step_is_the_whole_first_update(found):
    first = found.steps[found.steps["position"] == 1]
    np.testing.assert_allclose(first["step"], first["norm"], rtol=1e-5)


def test_every_token_in_both_orders(found):
    steps = found.steps.drop_duplicates(["item", "order", "repeat", "position"])
    sizes = steps.groupby(["item", "order"]).size()
    assert sizes.to_dict() == {(0, "own"): 5, (0, "shuffled"): 10, (1, "own"): 3, (1, "shuffled"): 6}
    tokens = steps[steps["item"] == 0].groupby(["order", "repeat"])["token"].apply(list)
    assert all(sorted(one) == sorted(tokens.iloc[0]) for one in tokens)
    assert set(found.shrinking["order"]) == {"own", "shuffled", "own - shuffled"}


def test_shrinking_is_the_log_ratio_of_later_to_earlier_steps(found):
    steps = found.steps[(found.steps["order"] == "own") & (found.steps["matrix"] == "W_up")]
    logs = []
    for item, (early, late) in enumerate([([2, 3], [4, 5]), ([2], [3])]):
        own = steps[steps["item"] == item].pivot_table(index="layer", columns="position", values="relative")
        logs.append(np.log2(own[late].mean(axis=1) / own[early].mean(axis=1)).mean())
    row = found.shrinking.set_index(["matrix", "order"]).loc[("W_up", "own")]
    assert row["estimate"] == pytest.approx(np.mean(logs)) and row["n_items"] == 2
    assert row["low"] <= row["estimate"] <= row["high"]


def test_where_all_tokens_are_the_same_order_makes_no_difference(tiny_model):
    same = measure_update_trajectory(tiny_model("llama"), [[9] * 5, [8] * 4], [[100], [30]], n_boot=100)
    rows = same.shrinking[same.shrinking["order"] == "own - shuffled"]
    assert (rows[["estimate", "low", "high"]].abs() < 1e-9).all(axis=None)


def test_report_carries_the_caveat_and_saves(found, tmp_path):
    assert found.caveat in repr(found) and "dW_out, own - shuffled" in str(found)
    found.save(tmp_path / "steps")
    assert UpdateTrajectory.load(tmp_path / "steps") == found
    assert found.plot().get_lines() and found.plot_map(1, "W_out").get_xlabel()
    with pytest.raises(ValueError, match="there is no item 7"):
        found.plot_map(7)
    with pytest.raises(ValueError, match="no matrix 'W_in'; known are W_gate, W_up, W_out"):
        found.plot_map(0, "W_in")


def test_refuses_bad_input(tiny_model):
    with pytest.raises(ValueError, match="n_shuffles=0"):
        measure_update_trajectory(tiny_model("llama"), CONTEXTS, QUERIES, n_shuffles=0)
    with pytest.raises(ValueError, match="context 1 is empty"):
        measure_update_trajectory(tiny_model("llama"), [[7], []], QUERIES)
    short = measure_update_trajectory(tiny_model("llama"), [[7, 9]], [[100]], n_boot=100).shrinking
    assert short["estimate"].isna().all() and (short["n_items"] == 0).all()
