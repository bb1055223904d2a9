"""The shipped regressors: small, documented, and as good on contexts nobody has seen as their cards say."""

from functools import cache

import numpy as np
import pytest
import torch

from mechicl.organisms.regression_judging import controlled
from mechicl.organisms.regression_recipes import REGRESSOR_RECIPES
from mechicl.organisms.regressors import REGRESSORS, load_regressor, regressor_card, regressor_folder
from mechicl.predictors.gradient import best_rate, gradient_descent_weights
from mechicl.predictors.spectral import decompose, descent_share

LINEAR = [name for name in REGRESSORS if name.startswith("lsa")]
SOFTMAX = [name for name in REGRESSORS if not name.startswith("lsa")]


@cache
def fresh(name, n=None):
    """Contexts of a seed that no card has, what the model predicts, and half the squared errors."""
    c = REGRESSOR_RECIPES[name].task.sample(n or (8000 if name in LINEAR else 2000), seed=424242)
    found = load_regressor(name).predict(c.x, c.y, c.query)
    return c, found, (found - c.target) ** 2 / 2


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_regressor_is_small_and_documented(name):
    folder, card = regressor_folder(name), regressor_card(name)
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "card.json"}
    assert card["name"] == name
    assert card["description"] == REGRESSORS[name]
    assert card["steps"] == REGRESSOR_RECIPES[name].steps
    assert card["recipe"]["n_layers"] == REGRESSOR_RECIPES[name].n_layers == len(load_regressor(name).blocks)
    assert card["n_params"] == sum(p.numel() for p in load_regressor(name).parameters())


@pytest.mark.parametrize("name", REGRESSORS)
def test_the_card_tells_how_well_it_predicts(name):
    """On contexts of another seed the error is in reach of the card's, by both intervals, and below that of 0."""
    c, _, error = fresh(name)
    row = regressor_card(name)["half_mse"]["model"]
    found = controlled(error, c, REGRESSOR_RECIPES[name].task)
    low, high = row["half_mse_controlled"][1:]
    assert found[1] - (high - low) < row["half_mse_controlled"][0] < found[2] + (high - low)
    assert row["half_mse"][0] < regressor_card(name)["half_mse"]["zero"]["half_mse"][0]


def test_one_linear_layer_is_one_step_of_descent_at_the_best_rate():
    """half_mse .2062 within 1%, slopes at a cosine above .99, and the same predictions but for a thousandth."""
    c, found, error = fresh("lsa-1", n=40_000)
    estimate, low, high = controlled(error, c, REGRESSOR_RECIPES["lsa-1"].task)
    assert estimate == pytest.approx(0.20623, rel=0.01)
    assert high - low < 0.002
    rate, _ = best_rate(10, 10, variance=1 / 12, fourth_moment=1 / 80)
    weights = gradient_descent_weights(c.x, c.y, rate=rate)
    slopes = load_regressor("lsa-1").sensitivity(c.x, c.y, c.query)
    cosine = (weights * slopes).sum(-1) / np.linalg.norm(weights, axis=-1) / np.linalg.norm(slopes, axis=-1)
    assert cosine.mean() > 0.99
    step = (weights * c.query).sum(-1)
    assert ((step - found) ** 2).mean() < 1e-3 * found.var()


def test_deeper_linear_models_do_better_than_as_many_steps_of_descent():
    """And than as many of GD++ with one rate and gamma; the parameters are the card's, chosen on other contexts."""
    errors = {name: fresh(name)[2].mean() for name in LINEAR}
    assert errors["lsa-1"] > 2 * errors["lsa-2"] > 6 * errors["lsa-4"]
    for name, layers in (("lsa-2", 2), ("lsa-4", 4)):
        c, _, error = fresh(name)
        spectrum = decompose(c.x, c.y, c.query)
        card = regressor_card(name)["half_mse"]
        (rate,) = card[f"gradient_descent({layers})"]["parameters"]
        descent = spectrum.predict(descent_share(spectrum, rates=[rate] * layers))
        rate, gamma = card[f"gradient_descent_plus({layers})"]["parameters"]
        plus = spectrum.predict(descent_share(spectrum, rates=[rate] * layers, gammas=[gamma] * layers))
        for other in (descent, plus):
            difference = error - (other - c.target) ** 2 / 2
            assert difference.mean() < -3 * difference.std() / np.sqrt(len(c))


def test_deeper_softmax_models_come_nearer_to_least_squares():
    distances = [regressor_card(name)["distance"]["least_squares"]["distance"][0] for name in SOFTMAX]
    errors = [fresh(name)[2].mean() for name in SOFTMAX]
    assert np.all(np.diff(distances) < 0)
    assert np.all(np.diff(errors) < 0)


def test_an_untrained_model_is_no_such_thing():
    """The null control: first weights predict no better than 0 and have no slopes in common with descent."""
    from mechicl.organisms.regressors import new_regressor

    c = REGRESSOR_RECIPES["lsa-1"].task.sample(8000, seed=1)
    model = new_regressor(REGRESSOR_RECIPES["lsa-1"])
    error = ((model.predict(c.x, c.y, c.query) - c.target) ** 2).mean() / 2
    assert error > 0.95 * (c.target**2).mean() / 2
    weights, slopes = gradient_descent_weights(c.x, c.y, rate=6.0), model.sensitivity(c.x, c.y, c.query)
    cosine = (weights * slopes).sum(-1) / np.linalg.norm(weights, axis=-1) / np.linalg.norm(slopes, axis=-1)
    assert abs(cosine.mean()) < 0.5


def test_loading():
    model = load_regressor("lsa-2", dtype="float64")
    assert model.dtype == torch.float64
    assert not model.training
    c = REGRESSOR_RECIPES["lsa-2"].task.sample(50, seed=0)
    single = load_regressor("lsa-2", device="cpu", dtype=torch.float32).predict(c.x, c.y, c.query)
    assert single == pytest.approx(model.predict(c.x, c.y, c.query), abs=1e-5)
    with pytest.raises(ValueError, match="did you mean 'lsa-4'"):
        load_regressor("lsa4")
    with pytest.raises(ValueError, match="'float16'; expected 'float32' or 'float64'"):
        load_regressor("lsa-1", dtype="float16")
    with pytest.raises(ValueError, match="this model reads 10"):
        model.predict(np.ones((2, 3, 5)), np.ones((2, 3)), np.ones((2, 5)))
