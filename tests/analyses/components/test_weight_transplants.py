"""Weights transplanted between checkpoints: what is known to change is found, and nothing else."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mechicl.analyses.components.held_out import HeldOut, ends, resamples
from mechicl.analyses.components.parts import (
    PARTS,
    hybrid,
    in_another_basis,
    shuffled_change,
    weight_parts,
)
from mechicl.analyses.components.transplants import (
    ALL_ORDERS,
    BASIS,
    INTO_AFTER,
    INTO_BEFORE,
    OTHER,
    SHUFFLED,
    UNRELATED,
    transplant_weights,
)
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.stack import Stack
from mechicl.organisms.grid.store import read_checkpoint

TOKENS = GridPoint("balls_and_urns", 4, context=6, dim=3, d_mlp=8, d_model=8, n_heads=2, steps=10)
CLASSES = GridPoint("classification", 4, context=6, dim=3, d_mlp=8, d_model=8, steps=10)
Run = tuple[Path, GridPoint]


def random_weights(point: GridPoint, seed: int) -> dict[str, Tensor]:
    stack = Stack(point.config, 1)
    stack.randomise([seed], spread=0.4)
    generator = torch.Generator().manual_seed(seed)
    own = stack.model_weights(0)
    return {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in own.items()}


@pytest.fixture(scope="module")
def held(tiny_run: Run) -> HeldOut:
    return HeldOut.of(tiny_run[1], 12)


@pytest.fixture(scope="module")
def trained(tiny_run: Run) -> list[dict[str, Tensor]]:
    folder, point = tiny_run
    return [read_checkpoint(folder / point.name, step) for step in point.schedule]


def test_predictions_are_probabilities_and_each_strategy_is_at_its_end(held: HeldOut, trained: Any) -> None:
    said = held.predictions(trained[-1])
    assert said.shape == held.memorising.shape == (12, 8, 4)
    np.testing.assert_allclose(said.sum(-1), 1, atol=1e-12)
    found = held.distances([held.generalising, held.memorising, said])
    np.testing.assert_array_equal(found.d_rel()[:2, 0], [0, 1])
    np.testing.assert_array_equal(found.residual()[:2, 0], [0, 0])
    by_hand = found.to_generalising[2].mean() - found.to_memorising[2].mean()
    assert found.d_rel()[2, 0] == pytest.approx((np.clip(by_hand / found.between.mean(), -1, 1) + 1) / 2)


def test_a_resample_is_the_sample_of_the_sequences_it_holds(held: HeldOut, trained: Any) -> None:
    found = held.distances([held.predictions(trained[-1])])
    counts = resamples(12, 100, seed=3)
    chosen = np.repeat(np.arange(12), counts[7].astype(int))
    assert found.d_rel(counts)[0, 7] == pytest.approx(found.part(chosen).d_rel()[0, 0])
    assert found.mean_loss(counts)[0, 7] == pytest.approx(found.loss[0, chosen].mean())
    low, high = ends(found.d_rel(counts), 0.9)
    assert low[0] <= found.d_rel()[0, 0] <= high[0]


def test_the_last_position_alone_is_the_last_position(held: HeldOut, trained: Any) -> None:
    said = held.predictions(trained[-1])
    last = held.distances([said], where="last")
    short = HeldOut(
        held.point, held.batch, *(part[:, -1:] for part in (held.memorising, held.generalising, held.truth))
    )
    np.testing.assert_array_equal(last.to_memorising, short.distances([said[:, -1:]]).to_memorising)
    with pytest.raises(ValueError, match="where='first'; expected one of all, last"):
        held.distances([said], where="first")


@pytest.mark.parametrize("point", [TOKENS, CLASSES])
@pytest.mark.parametrize("by_layer", [False, True])
def test_every_weight_is_in_one_part_and_all_parts_make_the_donor(point: GridPoint, by_layer: bool) -> None:
    names, numbers = weight_parts(point.config, by_layer=by_layer)
    assert set(numbers) == set(point.config.shapes)
    assert {int(n) for own in numbers.values() for n in own.unique()} == set(range(len(names)))
    host, donor = random_weights(point, 0), random_weights(point, 1)
    whole, none = (hybrid(host, donor, numbers, chosen) for chosen in (range(len(names)), ()))
    assert all(torch.equal(whole[name], donor[name]) and torch.equal(none[name], host[name]) for name in donor)
    # queries and keys are the first two thirds of W_QKV's columns
    part = hybrid(host, donor, numbers, [names.index("QK circuit 0" if by_layer else "QK circuit")])
    moved = (part["blocks.0.attn.W_QKV"] != host["blocks.0.attn.W_QKV"]).any(0)
    assert moved.tolist() == [True] * 16 + [False] * 8
    assert sum((part[name] != host[name]).any().item() for name in part) == 2


@pytest.mark.parametrize("point", [TOKENS, CLASSES])
def test_another_basis_says_the_same(point: GridPoint) -> None:
    held, weights = HeldOut.of(point, 5), random_weights(point, 0)
    other = in_another_basis(weights, point.config, seed=1)
    np.testing.assert_allclose(held.predictions(other), held.predictions(weights), atol=1e-6)
    _, numbers = weight_parts(point.config)
    mixed = held.predictions(hybrid(weights, other, numbers, {PARTS.index("OV circuit")}))
    assert np.abs(mixed - held.predictions(weights)).max() > 1e-3


def test_a_shuffled_change_is_as_large_in_each_part() -> None:
    host, donor = random_weights(TOKENS, 0), random_weights(TOKENS, 1)
    _, numbers = weight_parts(TOKENS.config)
    moved = shuffled_change(host, donor, numbers)
    name = "blocks.0.attn.W_QKV"
    for columns in (slice(0, 16), slice(16, 24)):
        own, real = ((w[name] - host[name])[:, columns].flatten().sort().values for w in (moved, donor))
        torch.testing.assert_close(own, real)
    assert not torch.equal(moved[name], donor[name])


def test_a_change_of_the_mlp_alone_is_found_there_and_nowhere_else(held: HeldOut, trained: Any) -> None:
    before = trained[1]
    after = before | {name: weight for name, weight in trained[3].items() if "W_out" in name}
    found = transplant_weights(held, before, after, n_boot=100)
    own = found.frame.query("donor == @OTHER").set_index(["direction", "part"])
    for direction in (INTO_BEFORE, INTO_AFTER, ALL_ORDERS):
        shares = own.loc[direction].loc[list(PARTS)]
        for column in ("share", "low", "high"):
            np.testing.assert_allclose(shares[column], [0, 0, 0, 0, 1, 0, 0], atol=1e-12)
    assert own.loc[(INTO_BEFORE, "interaction"), "share"] == pytest.approx(0, abs=1e-12)
    shuffled = found.frame.query("donor == @SHUFFLED and part == 'MLP out'").iloc[0]
    assert shuffled["share"] != pytest.approx(1, abs=1e-3)
    assert (found.frame.query("donor == @SHUFFLED and part != 'MLP out'")["moved"] == 0).all()


def test_nothing_moves_where_there_is_no_change(held: HeldOut, trained: Any) -> None:
    weights = trained[2]
    found = transplant_weights(held, weights, weights, n_boot=100).frame
    own = found[found["donor"].isin([OTHER, SHUFFLED])]
    assert (own["moved"].dropna() == 0).all() and own["moved"].notna().sum() == 21
    assert own["share"].isna().all()


def test_shares_agree_with_transplants_by_hand(held: HeldOut, trained: Any) -> None:
    before, after, alien = trained[1], trained[3], random_weights(held.point, 2)
    found = transplant_weights(held, before, after, unrelated=alien, n_boot=100)
    names, numbers = weight_parts(held.point.config)

    def d_rel(host: dict[str, Tensor], donor: dict[str, Tensor], chosen: set[int]) -> float:
        return float(held.distances([held.predictions(hybrid(host, donor, numbers, chosen))]).d_rel()[0, 0])

    low, high = d_rel(before, before, set()), d_rel(after, after, set())
    own = found.frame.set_index(["direction", "donor", "part"])["share"].sort_index()
    at = names.index("QK circuit")
    assert own[INTO_BEFORE, OTHER, "QK circuit"] == pytest.approx((d_rel(before, after, {at}) - low) / (high - low))
    assert own[INTO_AFTER, OTHER, "QK circuit"] == pytest.approx((d_rel(after, before, {at}) - high) / (low - high))
    assert own[INTO_BEFORE, UNRELATED, "QK circuit"] == pytest.approx((d_rel(before, alien, {at}) - low) / (high - low))
    orders = list(permutations(range(len(names))))
    value = {chosen: row for chosen, row in zip(found.sets["parts"], found.sets["d_rel"], strict=True)}

    def v(chosen: list[int]) -> float:
        return value[" + ".join(names[i] for i in sorted(chosen)) or "none"]

    gains = [v([*order[: order.index(at)], at]) - v(list(order[: order.index(at)])) for order in orders]
    assert own[ALL_ORDERS, OTHER, "QK circuit"] == pytest.approx(np.mean(gains) / (high - low))
    assert own[ALL_ORDERS, OTHER].sum() == pytest.approx(1)
    single = own[INTO_BEFORE, OTHER]
    assert single["sum of parts"] == pytest.approx(single.loc[list(PARTS)].sum())
    assert single["interaction"] == pytest.approx(1 - single["sum of parts"])
    assert set(found.frame["donor"]) == {OTHER, BASIS, SHUFFLED, UNRELATED}
    assert len(found.sets) == 2**7 and found.sets["d_rel"].iloc[-1] == pytest.approx(high)


def test_layers_are_told_apart() -> None:
    point = GridPoint("classification", 4, context=6, dim=3, d_mlp=8, d_model=8, n_layers=2, steps=10)
    deep = HeldOut.of(point, 12)
    before = random_weights(point, 5)
    after = before | {name: w for name, w in random_weights(point, 1).items() if name.startswith("blocks.1.attn.W_O")}
    found = transplant_weights(deep, before, after, by_layer=True, n_boot=100)
    own = found.frame.query("donor == @OTHER and direction == @INTO_BEFORE").set_index("part")["share"]
    assert own["OV circuit 1"] == pytest.approx(1) and own["OV circuit 0"] == 0
    assert set(found.frame["direction"]) == {INTO_BEFORE, INTO_AFTER}  # 13 parts are too many for all sets
    assert len(found.sets) == 2 + 2 * 13


def test_weights_of_another_shape_are_refused(held: HeldOut) -> None:
    weights = random_weights(held.point, 0)
    with pytest.raises(ValueError, match="'after' are not of the shapes of balls_and_urns-D8"):
        transplant_weights(held, weights, random_weights(CLASSES, 0))
    with pytest.raises(ValueError, match="n=2"):
        HeldOut.of(CLASSES, 2)
