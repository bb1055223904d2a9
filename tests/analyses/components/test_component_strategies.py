"""Ablations of one model: parts that carry something are named, and parts that carry nothing are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mechicl.analyses.components import ablations
from mechicl.analyses.components.ablations import ablate_components, components
from mechicl.analyses.components.held_out import HeldOut
from mechicl.analyses.components.hooked_runs import HookedRun
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import read_checkpoint

Run = tuple[Path, GridPoint]


@pytest.fixture(scope="module")
def one_headed(tiny_run: Run) -> HookedRun:
    """A trained model whose second head and whose MLP write nothing."""
    folder, point = tiny_run
    own = dict(read_checkpoint(folder / point.name))
    zeroed: dict[str, Tensor] = {}
    for name in ("attn.W_O", "mlp.W_out", "mlp.b_out"):
        zeroed[f"blocks.0.{name}"] = torch.zeros_like(own[f"blocks.0.{name}"])
    zeroed["blocks.0.attn.W_O"][:8] = own["blocks.0.attn.W_O"][:8]
    return HookedRun.of_weights(own | zeroed, HeldOut.of(point, 60))


def test_the_head_that_writes_is_named_and_the_others_are_not(one_headed: HookedRun) -> None:
    found = ablate_components(one_headed, strengths=[1.0], n_boot=100, n_permutations=500)
    table: Any = found.frame.set_index("component")
    numbers = ["moved", "moved_low", "moved_high", "control", "beyond", "loss_moved", "loss_control"]
    np.testing.assert_allclose(table.loc[["head 1", "MLP"], numbers].astype(float), 0, atol=1e-6)
    assert list(table.loc[["head 1", "MLP"], "named"]) == [False, False]
    assert list(table.loc[["head 1", "MLP"], "carries"]) == ["neither", "neither"]
    assert table.loc["head 0", "named"] and abs(table.loc["head 0", "moved"]) > 0.01
    # the only head that writes is all of attention, up to a constant bias
    for name in ("moved", "loss_moved"):
        assert table.loc["head 0", name] == pytest.approx(table.loc["attention", name], abs=1e-5)
    assert found.clean_d_rel + table.loc["head 0", "moved"] == pytest.approx(table.loc["head 0", "d_rel"])


def test_an_ablation_is_the_mean_by_hand(one_headed: HookedRun) -> None:
    out = one_headed.capture([("attn_out", 0)])["attn_out", 0]
    with_mean = one_headed.predictions([("attn_out", 0, lambda x: out.mean(0, keepdim=True).expand_as(x))])
    rest = np.random.default_rng(0).permutation(60)[30:]
    by_hand = one_headed.held.distances([with_mean]).part(rest)
    table: Any = ablate_components(one_headed, strengths=[1.0], n_boot=100, n_permutations=99).frame.set_index(
        "component"
    )
    assert table.loc["attention", "d_rel"] == pytest.approx(by_hand.d_rel()[0, 0], abs=1e-6)
    assert table.loc["attention", "residual"] == pytest.approx(by_hand.residual()[0, 0], abs=1e-6)


def test_a_weaker_ablation_goes_a_part_of_the_way(one_headed: HookedRun) -> None:
    out = one_headed.capture([("attn_out", 0)])["attn_out", 0]
    half = 0.5 * out + 0.5 * out.mean(0, keepdim=True)
    rest = np.random.default_rng(0).permutation(60)[30:]
    by_hand = one_headed.held.distances([one_headed.predictions([("attn_out", 0, lambda x: half)])]).part(rest)
    found = ablate_components(one_headed, strengths=[0.5, 1.0], n_boot=100, n_permutations=99).frame
    table: Any = found.set_index(["strength", "component"])
    assert table.loc[(0.5, "attention"), "d_rel"] == pytest.approx(by_hand.d_rel()[0, 0], abs=1e-6)
    assert len(table) == 2 * 4
    residual = found.query("named")["residual"]
    assert ((residual > 1) == (found.query("named")["carries"] == "both")).all() and len(residual)


def test_a_random_change_is_as_large() -> None:
    turn = ablations._rotations(3, 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn @ turn.mT, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))
    assert (turn[0] - turn[1]).abs().max() > 0.1


def test_a_part_that_is_noise_is_named_no_more_often_than_chance(one_headed: HookedRun) -> None:
    """A change in a random direction against others of its kind: nothing goes beyond the control."""
    original, generator = ablations._changed, torch.Generator().manual_seed(9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ablations,
            "_changed",
            lambda run, part, taken, strength, _: original(run, part, taken, strength, generator),
        )
        named = [
            ablate_components(one_headed, strengths=[1.0], n_boot=100, n_permutations=99, n_random=2, seed=seed)
            .frame["named"]
            .any()
            for seed in range(4)
        ]
    assert sum(named) <= 1


def test_layers_and_heads_are_counted_where_there_are_several() -> None:
    assert [part.name for part in components(1, 1)] == ["attention", "MLP"]
    assert len(components(2, 3)) == 2 * (3 + 3)


def test_too_few_sequences_are_refused(tiny_run: Run, one_headed: HookedRun) -> None:
    few = HookedRun(one_headed.wrapped, HeldOut.of(tiny_run[1], 6))
    with pytest.raises(ValueError, match="6 sequences"):
        ablate_components(few)
    with pytest.raises(ValueError, match=r"strengths=\(0.0,\)"):
        ablate_components(one_headed, strengths=[0.0])
    with pytest.raises(ValueError, match="n_random=0"):
        ablate_components(one_headed, n_random=0)
