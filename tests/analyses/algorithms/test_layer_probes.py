"""What each layer knows: a model that takes one step a layer shows it; shuffled and untrained ones show nothing."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mechicl import results
from mechicl.analyses.algorithms.layer_probes import probe_layers
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig
from mechicl.predictors.gradient import newton_weights
from mechicl.tasks.regression import RegressionTask

TASK = RegressionTask(4, 8, inputs="normal")
CONTEXTS = TASK.sample(900, seed=4)
RATE = 0.3


@pytest.fixture(scope="module")
def found():
    model = descending_transformer(4, rate=RATE, steps=4)
    return probe_layers(model, CONTEXTS, descent_steps=(1, 2, 3, 4, 5), newton_steps=(1, 2, 3), rate=RATE, n_boot=200)


def test_a_layer_a_step_is_read_as_one(found) -> None:
    best = found.best[found.best["target"] == "gradient_descent"].set_index("layer")
    assert list(best["steps"][1:]) == [1, 2, 3, 4]
    assert list(best["steps_low"][1:]) == [1, 2, 3, 4] == list(best["steps_high"][1:])
    assert (best["r2"][1:] > 1 - 1e-6).all()
    assert best["r2"][0] < 0.05  # the embedding has not seen the context
    assert "1 [1, 1] (r2 1.00), 2 [2, 2] (r2 1.00), 3 [3, 3]" in found.verdict


def test_the_probe_of_the_last_layer_is_that_of_the_prediction(found) -> None:
    """All that the stream holds is x_q and the prediction of 4 steps, so r2 for Newton is a plain regression's."""
    from sklearn.linear_model import LinearRegression

    model = descending_transformer(4, rate=RATE, steps=4)
    given = CONTEXTS.x, CONTEXTS.y, CONTEXTS.query
    goal = (newton_weights(*given[:2], steps=2) * CONTEXTS.query).sum(-1)
    features = np.column_stack([CONTEXTS.query, model.predict(*given)])
    order = np.random.default_rng(0).permutation(900)
    train, test = order[:450], order[450:]
    predicted = LinearRegression().fit(features[train], goal[train]).predict(features[test])
    r2 = 1 - ((goal[test] - predicted) ** 2).sum() / ((goal[test] - goal[train].mean()) ** 2).sum()
    rows = found.frame.set_index(["layer", "target", "steps"])
    assert rows["r2"][4, "newton", 2] == pytest.approx(r2, abs=1e-3)
    assert rows["low"][4, "newton", 2] < rows["r2"][4, "newton", 2] < rows["high"][4, "newton", 2]


def test_controls_read_nothing(found) -> None:
    assert (found.frame["shuffled"] < 0.05).all()
    assert (found.frame["untrained"] < 0.2).all()
    assert found.frame["r2"].max() > 0.99
    # One number cannot hold four: the vectors are not to be read from a single prediction.
    assert (found.frame[found.frame["target"].isin(["moment", "weights"])]["r2"] < 0.2).all()


def test_a_random_model_has_no_steps() -> None:
    model = RegressionTransformer(SoftmaxConfig(4, 8, 2, d_model=16, n_heads=2, d_mlp=16))
    model.randomise(seed=1)
    probes = probe_layers(model, CONTEXTS, descent_steps=(1, 4), newton_steps=(1, 3), n_boot=100)
    assert (probes.frame["r2"] < 0.1).all()
    assert probes.verdict.count("none (nothing to read)") == 4
    largest = np.linalg.eigvalsh(np.swapaxes(CONTEXTS.x, 1, 2) @ CONTEXTS.x / 8).max()
    assert probes.rate == pytest.approx(1 / largest)


def test_it_is_drawn_and_comes_back_from_its_folder(found, tmp_path) -> None:
    plt.switch_backend("agg")
    assert found.plot().has_data() and found.plot(target="gradient_descent").has_data()
    plt.close("all")
    found.save(tmp_path / "probes")
    assert results.load(tmp_path / "probes") == found


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="states"):
        probe_layers(lambda x, y, query: query[..., 0], CONTEXTS)
    with pytest.raises(ValueError, match="steps below 1"):
        probe_layers(descending_transformer(4, rate=RATE), CONTEXTS, newton_steps=(0,))
    with pytest.raises(ValueError, match="contexts"):
        probe_layers(descending_transformer(4, rate=RATE), TASK.sample(20, seed=0))
