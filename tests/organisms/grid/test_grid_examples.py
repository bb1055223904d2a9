"""The models of balls and urns that come with the package: their cards, and that they open with the same outputs."""

import numpy as np
import pytest
import torch

from mechicl.organisms.grid.examples import GRID_MODELS, card_of, grid_model_card, grid_model_folder, load_grid_model
from mechicl.organisms.grid.predictions import each_checkpoint, held_out
from mechicl.organisms.grid.store import checkpoint_steps, read_point


@pytest.mark.parametrize("name", GRID_MODELS)
def test_cards_say_what_the_models_do(name):
    folder, card = grid_model_folder(name), grid_model_card(name)
    steps = tuple(checkpoint_steps(folder))
    assert [str(step) for step in steps] == list(card["steps"])
    found = card_of(read_point(folder), folder, steps)["steps"]
    for step in card["steps"]:
        assert found[step] == pytest.approx(card["steps"][step], abs=2e-3)


def test_they_memorise_generalise_and_turn():
    d_rel = {name: [row["d_rel"] for row in grid_model_card(name)["steps"].values()] for name in GRID_MODELS}
    assert d_rel["urns-memory"][-1] > 0.95
    assert d_rel["urns-general"][-1] < 0.05
    early, middle, late = d_rel["urns-transient"]
    assert early < 0.2 < middle < 0.4 < late


def test_one_opens_as_a_transformer_lens_model_with_the_same_predictions():
    folder = grid_model_folder("urns-transient")
    point = read_point(folder)
    batch = held_out(point, 4)
    (_, found), *_ = each_checkpoint(folder, point, batch, steps=(327,))
    model = load_grid_model("urns-transient", 327)
    with torch.no_grad():
        logits = model(torch.from_numpy(batch.tokens)[:, :-1])
    np.testing.assert_allclose(logits[..., :-1].softmax(-1).numpy(), found, atol=1e-5)


def test_wrong_names_and_steps_are_refused():
    with pytest.raises(ValueError, match="did you mean 'urns-memory'"):
        grid_model_folder("urn-memory")
    with pytest.raises(ValueError, match="nearest is after 327"):
        load_grid_model("urns-transient", 300)
