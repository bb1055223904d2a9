"""Patching between checkpoints: identities that hold for any two models, and what is known to carry a change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mechicl.analyses.components.held_out import HeldOut
from mechicl.analyses.components.hooked_runs import STREAMS, HookedRun, replaced
from mechicl.analyses.components.parts import in_another_basis
from mechicl.analyses.components.patching import patch_checkpoints, patching_sites
from mechicl.analyses.components.transplants import BASIS, INTO_AFTER, INTO_BEFORE, OTHER
from mechicl.organisms.grid.opened import open_checkpoint
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.stack import Stack
from mechicl.organisms.grid.store import read_checkpoint

SIZES: dict[str, Any] = {"context": 6, "dim": 3, "d_mlp": 8, "d_model": 8, "n_heads": 2}
SETTINGS = ("balls_and_urns", "classification", "linear_regression")
TAIL = ("ln_final.w", "ln_final.b", "unembed.W")
Run = tuple[Path, GridPoint]


def weights(point: GridPoint, seed: int) -> dict[str, Tensor]:
    stack = Stack(point.config, 1)
    stack.randomise([seed], spread=0.4)
    return stack.model_weights(0)


def shifted(own: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """Weights of which some are changed a little."""
    change = torch.Generator().manual_seed(5)
    return own | {name: own[name] + 0.3 * torch.randn(own[name].shape, generator=change) for name in names}


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request: pytest.FixtureRequest) -> tuple[HookedRun, HookedRun]:
    """Two models of one setting, two layers deep, that share nothing but what reads the last stream."""
    point = GridPoint(request.param, 4, n_layers=2, **SIZES)
    held = HeldOut.of(point, 10)
    host, donor = weights(point, 0), weights(point, 1)
    donor |= {name: host[name] for name in TAIL}
    return HookedRun.of_weights(host, held), HookedRun.of_weights(donor, held)


def test_opened_models_say_what_their_weights_say(pair: tuple[HookedRun, HookedRun]) -> None:
    host, _ = pair
    own = host.held.predictions(weights(host.held.point, 0))
    np.testing.assert_allclose(host.predictions(), own, atol=5e-6)


@pytest.mark.parametrize("where", ["all", "last"])
def test_patching_with_oneself_changes_nothing(pair: tuple[HookedRun, HookedRun], where: str) -> None:
    host, _ = pair
    places = [(name, layer) for name in ("pattern", "z", *STREAMS) for layer in (0, 1)]
    taken = host.capture(places)
    for place in places:
        said = host.predictions([replaced(host.wrapped, place, taken[place], where=where)])
        np.testing.assert_array_equal(said, host.predictions())


def test_patching_all_that_differs_gives_the_other_model(pair: tuple[HookedRun, HookedRun]) -> None:
    host, donor = pair
    taken = donor.capture([("resid_post", 1)])[("resid_post", 1)]
    clean, wanted = host.predictions(), donor.predictions()
    whole = host.predictions([replaced(host.wrapped, ("resid_post", 1), taken)])
    np.testing.assert_allclose(whole, wanted, atol=1e-6)
    last = host.predictions([replaced(host.wrapped, ("resid_post", 1), taken, where="last")])
    np.testing.assert_allclose(last[:, -1], wanted[:, -1], atol=1e-6)
    np.testing.assert_array_equal(last[:, :-1], clean[:, :-1])  # no position sees what comes after it
    assert np.abs(wanted - clean).max() > 0.01


def test_one_head_is_one_head(pair: tuple[HookedRun, HookedRun]) -> None:
    host, donor = pair
    for name in ("pattern", "z"):
        taken = donor.capture([(name, 0)])[name, 0]
        both = [replaced(host.wrapped, (name, 0), taken, head=head) for head in (0, 1)]
        whole = host.predictions([replaced(host.wrapped, (name, 0), taken)])
        np.testing.assert_allclose(host.predictions(both), whole, atol=1e-7)
        assert np.abs(host.predictions(both[:1]) - whole).max() > 1e-4
    assert not host.wrapped.has_hooks()


def test_a_change_of_the_mlp_is_in_its_output_and_not_in_attention(tiny_run: Run) -> None:
    folder, point = tiny_run
    held = HeldOut.of(point, 12)
    own = read_checkpoint(folder / point.name, point.schedule[1])
    other = own | {
        name: weight
        for name, weight in read_checkpoint(folder / point.name, point.schedule[3]).items()
        if ".mlp." in name
    }
    before, after = HookedRun.of_weights(own, held), HookedRun.of_weights(other, held)
    basis = HookedRun.of_weights(in_another_basis(other, point.config), held)
    found = patch_checkpoints(before, after, controls={BASIS: basis}, n_boot=100).frame
    table: Any = found.query("head == -1").set_index(["direction", "donor", "where", "site"]).sort_index()
    for direction in (INTO_BEFORE, INTO_AFTER):
        for where in ("all", "last"):
            shares: Any = table.loc[(direction, OTHER, where)]
            for site in ("embedding", "pattern", "mixed values", "attention output", "stream after attention"):
                np.testing.assert_allclose(shares.loc[site, ["share", "low", "high"]].astype(float), 0, atol=1e-5)
            for site in ("MLP output", "both outputs", "stream after block"):
                np.testing.assert_allclose(shares.loc[site, ["share", "low", "high"]].astype(float), 1, atol=1e-5)
            assert shares.loc["interaction", "share"] == pytest.approx(0, abs=1e-5)
    control: Any = table.loc[(INTO_BEFORE, BASIS, "all")]
    assert control.loc["pattern", "share"] == pytest.approx(0, abs=1e-5)  # it needs no basis
    assert control.loc["stream after block", "residual"] > table.loc[(INTO_BEFORE, OTHER, "all")]["residual"].max()


def test_heads_and_layers_have_their_own_places() -> None:
    names = [(site.name, site.layer, site.head) for site in patching_sites(2, 2)]
    assert len(set(names)) == len(names) == 1 + 2 * 11
    assert len(patching_sites(1, 1)) == 8


def test_models_are_left_as_they_were(tiny_run: Run) -> None:
    folder, point = tiny_run
    model = open_checkpoint(folder / point.name)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    run = HookedRun.of(model, HeldOut.of(point, 4))
    found = patch_checkpoints(run, run, where=["all"], n_boot=100).frame
    assert (found["moved"].dropna() == 0).all() and found["share"].isna().all()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not run.wrapped.has_hooks()


def test_what_does_not_go_together_is_refused(tiny_run: Run) -> None:
    folder, point = tiny_run
    model = open_checkpoint(folder / point.name)
    one, two = (HookedRun.of(model, HeldOut.of(point, 4)) for _ in range(2))
    with pytest.raises(ValueError, match="other sequences"):
        patch_checkpoints(one, two)
    with pytest.raises(ValueError, match=r"where=\('first',\)"):
        patch_checkpoints(one, one, where=["first"])
