"""Alignment with one gradient step: identities for models that carry it out, and controls that do not."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mechicl import results
from mechicl.analyses.algorithms.alignment import align_with_step
from mechicl.analyses.algorithms.alignment_scales import align_over_scales
from mechicl.analyses.algorithms.implicit_weights import compare_weights, probe_weights
from mechicl.analyses.algorithms.regressor_calls import slopes
from mechicl.analyses.algorithms.weight_interpolation import interpolate_weights
from mechicl.organisms.gradient_constructions import attentions, descending_transformer
from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer
from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig
from mechicl.predictors.gradient import best_rate, gradient_descent, least_squares, least_squares_weights, ridge_weights
from mechicl.predictors.gradient import ridge as ridge_prediction
from mechicl.tasks.regression import RegressionTask

TASK = RegressionTask(4, 6, inputs="normal")
CONTEXTS = TASK.sample(400, seed=2)
RATE = 0.5
STEP = descending_transformer(4, rate=RATE)


def softmax_model(dtype=torch.float64):
    model = RegressionTransformer(SoftmaxConfig(4, 6, 2, d_model=16, n_heads=2, d_mlp=32), dtype=dtype)
    model.randomise(seed=0)
    return model


def test_a_model_that_is_the_step_is_aligned_and_its_controls_are_not() -> None:
    found = align_with_step(STEP, CONTEXTS, n_boot=200)
    assert found.rate == pytest.approx(RATE, rel=1e-12)
    for measure, value in (("distance", 0), ("share", 0), ("cosine", 1), ("slope_distance", 0)):
        assert found.value("model", measure) == pytest.approx(value, abs=1e-12)
    rows = found.frame.set_index(["condition", "measure"])
    assert abs(found.value("other contexts", "cosine")) < 0.15
    assert found.value("untrained", "cosine") < 0.8
    assert rows["diff_low"]["other contexts", "cosine"] > 0.8
    assert rows["diff_high"]["untrained", "distance"] < 0
    assert found.value("step", "half_mse") == pytest.approx(found.value("model", "half_mse"))
    assert "cosine 1.000" in found.verdict


def test_the_measures_are_what_their_formulas_say() -> None:
    """Ridge beside one step, on the held-out half."""
    found = align_with_step(partial(ridge_prediction, penalty=1.0), CONTEXTS, rate=RATE, n_boot=200)
    rows = np.random.default_rng(0).permutation(400)[200:]
    x, y, query, target = (part[rows] for part in (CONTEXTS.x, CONTEXTS.y, CONTEXTS.query, CONTEXTS.target))
    w, step = ridge_weights(x, y, penalty=1.0), RATE / 6 * np.einsum("bnd,bn->bd", x, y)
    own, by_step = (w * query).sum(-1), (step * query).sum(-1)
    cosine = (w * step).sum(-1) / np.linalg.norm(w, axis=-1) / np.linalg.norm(step, axis=-1)
    expected = {
        "distance": abs(own - by_step).mean(),
        "share": ((own - by_step) ** 2).sum() / (own**2).sum(),
        "cosine": cosine.mean(),
        "slope_distance": np.linalg.norm(w - step, axis=-1).mean(),
        "half_mse": ((own - target) ** 2).mean() / 2,
    }
    for measure, value in expected.items():
        assert found.value("model", measure) == pytest.approx(value, rel=1e-5)
    assert "untrained" not in set(found.frame["condition"])  # a function has no weights to shuffle


def test_slopes_by_differences_are_those_of_automatic_differentiation() -> None:
    model = softmax_model()
    exact = slopes(model, CONTEXTS)
    np.testing.assert_allclose(slopes(lambda *context: model.predict(*context), CONTEXTS), exact, atol=1e-6)
    np.testing.assert_array_equal(slopes(model.predict, CONTEXTS), exact)  # its owner is known
    w = least_squares_weights(CONTEXTS.x, CONTEXTS.y)
    np.testing.assert_allclose(slopes(least_squares, CONTEXTS), w, atol=1e-6)


def test_a_control_that_overflows_is_bounded() -> None:
    deep = descending_transformer(4, rate=1e80, steps=4)
    with pytest.raises(ValueError, match="not finite"):
        align_with_step(deep, CONTEXTS)
    found = align_with_step(STEP, CONTEXTS, untrained=deep, n_boot=100)
    rows = found.frame[found.frame["measure"] != "share"]  # a share of predictions that are all 0 is undefined
    assert np.isfinite(rows[["estimate", "low", "high"]].to_numpy()).all()
    assert found.value("untrained", "cosine") == 0 and found.value("model", "cosine") == pytest.approx(1)


def test_with_the_task_the_loss_is_held_against_the_known_one() -> None:
    rate, loss = best_rate(4, 6, variance=1.0, fourth_moment=3.0)
    found = align_with_step(descending_transformer(4, rate=rate), CONTEXTS, task=TASK, n_boot=200)
    assert found.expected_half_mse == pytest.approx(loss / 2)
    assert found.half_mse_controlled == pytest.approx([loss / 2] * 3, rel=1e-4)  # the card's five digits


def test_the_step_is_the_same_at_every_scale_and_a_solver_is_not() -> None:
    found = align_over_scales(STEP, TASK, rate=RATE, scales=(0.5, 2.0), n_contexts=200, n_boot=100)
    assert (found.frame["share"] < 1e-20).all()
    np.testing.assert_allclose(found.frame["model_error"], found.frame["step_error"])
    other = align_over_scales(least_squares, TASK, rate=RATE, scales=(0.5, 2.0), n_contexts=200, n_boot=100).frame
    assert (other["low"] > 0.1).all()
    weights = other[other["kind"] == "weights"]["share"].to_numpy()
    assert weights[0] == pytest.approx(weights[1])  # both are linear in y
    inputs = other[other["kind"] == "inputs"]["share"].to_numpy()
    assert inputs[1] > 2 * inputs[0]
    with pytest.raises(ValueError, match="scales"):
        align_over_scales(STEP, TASK, rate=RATE, scales=(0.0,))
    with pytest.raises(ValueError, match="covariance"):
        align_over_scales(STEP, RegressionTask(2, 3, inputs="normal", covariance=np.eye(2)), rate=RATE)


def rotated(model):
    """The same function with other weights: each product's factors are mixed and their sizes moved between products."""
    other = LinearTransformer(LinearConfig(model.cfg.dim, model.cfg.n_layers), dtype=torch.float64)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for own, new in zip(attentions(model), attentions(other), strict=True):
            mix, turn = (torch.tensor(rng.standard_normal((5, 5)) + 3 * np.eye(5)) for _ in range(2))
            new.W_Q[0], new.W_K[0] = 3.0 * own.W_Q[0] @ mix, own.W_K[0] @ torch.linalg.inv(mix).T
            new.W_V[0], new.W_O[0] = own.W_V[0] @ turn / 3.0, torch.linalg.inv(turn) @ own.W_O[0]
    return other


def test_weights_that_compute_the_same_are_the_same_after_rescaling() -> None:
    model = rotated(STEP)
    given = CONTEXTS.x, CONTEXTS.y, CONTEXTS.query
    np.testing.assert_allclose(model.predict(*given), STEP.predict(*given), atol=1e-10)
    found = interpolate_weights(model, STEP, CONTEXTS, n_boot=200)
    own = ((STEP.predict(*given) - CONTEXTS.target) ** 2).mean() / 2
    np.testing.assert_allclose(found.frame["half_mse"], own, rtol=1e-10)
    assert abs(found.barrier) < 1e-10
    middle = found.frame.set_index("share").loc[0.5]
    assert middle["unscaled"] > 1.01 * own and middle["random"] > 1.1 * own


def test_the_way_between_opposite_weights_has_a_barrier() -> None:
    """Minus both products compute the same in one layer; half way there is nothing left."""
    flipped = descending_transformer(4, rate=RATE, steps=2)
    with torch.no_grad():
        for attention in attentions(flipped):
            attention.W_O[0, -1, 0] = 2.0  # writes labels into the inputs: another function
    found = interpolate_weights(flipped, descending_transformer(4, rate=RATE, steps=2), CONTEXTS, n_boot=200)
    assert found.frame["half_mse"].iloc[0] > 1.2 * found.frame["half_mse"].iloc[-1]
    with pytest.raises(ValueError, match="same"):
        interpolate_weights(STEP, flipped, CONTEXTS)
    with pytest.raises(ValueError, match="linear transformers"):
        interpolate_weights(softmax_model(), STEP, CONTEXTS)
    with pytest.raises(ValueError, match="shares"):
        interpolate_weights(STEP, STEP, CONTEXTS, shares=(0.0, 2.0))


def test_implicit_weights_of_a_linear_predictor_are_its_weights() -> None:
    found, r2 = probe_weights(partial(ridge_prediction, penalty=1.0), CONTEXTS, n_probes=12)
    np.testing.assert_allclose(found, ridge_weights(CONTEXTS.x, CONTEXTS.y, penalty=1.0), atol=1e-9)
    assert r2 == pytest.approx(1)
    assert probe_weights(lambda x, y, query: query[..., 0] ** 2, CONTEXTS, n_probes=40)[1] < 0.5


def test_distances_of_predictors_are_zero_to_themselves_and_known_to_others() -> None:
    step = partial(gradient_descent, rate=RATE)
    found = compare_weights(STEP, CONTEXTS, {"step": step, "ols": least_squares}, n_boot=200)
    rows = found.frame.set_index("algorithm")
    assert rows["spd"]["step"] < 1e-20 and rows["ilwd"]["step"] < 1e-20
    given = CONTEXTS.x, CONTEXTS.y, CONTEXTS.query
    assert rows["spd"]["ols"] == pytest.approx(((step(*given) - least_squares(*given)) ** 2).mean())
    w = RATE / 6 * np.einsum("bnd,bn->bd", CONTEXTS.x, CONTEXTS.y)
    apart = ((w - least_squares_weights(CONTEXTS.x, CONTEXTS.y)) ** 2).sum(-1).mean()
    assert rows["ilwd"]["ols"] == pytest.approx(apart)
    assert rows["ilwd"]["zero"] == pytest.approx((w**2).sum(-1).mean())
    assert rows["ilwd"]["other contexts"] > rows["ilwd"]["zero"]
    with pytest.raises(ValueError, match="probes"):
        compare_weights(STEP, CONTEXTS, n_probes=2)
    with pytest.raises(ValueError, match="controls"):
        compare_weights(STEP, CONTEXTS, {"zero": step})


def test_results_are_drawn_and_come_back_from_their_folders(tmp_path) -> None:
    plt.switch_backend("agg")
    for at, result in enumerate(
        (
            align_with_step(STEP, CONTEXTS, task=TASK, n_boot=100),
            align_over_scales(STEP, TASK, rate=RATE, scales=(1.0,), n_contexts=50, n_boot=100),
            interpolate_weights(STEP, STEP, CONTEXTS, n_boot=100),
            compare_weights(STEP, CONTEXTS, n_boot=100),
        )
    ):
        result.save(tmp_path / str(at))
        assert result.plot().has_data()
        assert results.load(tmp_path / str(at)) == result
        assert result.to_frame().equals(result.frame)
    plt.close("all")
