"""Organisms of the recovery study: each answers as its account's closed form does, and only so."""

import numpy as np
import pytest
from scipy.special import softmax

from mechicl.analyses.recovery.kinds import KINDS, MAKERS, add_noise, grow
from mechicl.analyses.recovery.organisms import NoisyRule
from mechicl.analyses.recovery.urns import DIVERSITY, follows, urn_point, urn_points
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid
from mechicl.predictors.closed_forms import ridge
from mechicl.predictors.gradient import gradient_descent, gradient_descent_plus
from mechicl.predictors.kernels import dot_log_kernel, nadaraya_watson, rbf_log_kernel
from mechicl.predictors.pooled_regression import memorising

REGRESSION = [kind for kind in KINDS if kind.startswith("regression")]


def drawn(organism, n=50):
    """Contexts of the organism's task, at full length."""
    if hasattr(organism.task, "pool"):
        whole = organism.task.sample(n, step=(3, 0))
        return whole.x[:, :-1], whole.y[:, :-1], whole.x[:, -1]
    batch = organism.task.sample(n, seed=5)
    return batch.x, batch.y, batch.query


def closed_form(kind, organism, x, y, query):
    """What the account says, from its predictor."""
    own = dict(organism.parameters)
    if kind == "regression: gradient descent":
        return gradient_descent(x, y, query, rate=own["rate"], steps=own["steps"])
    if kind == "regression: GD++":
        gamma = own["gamma"] / x.shape[1]
        return gradient_descent_plus(x, y, query, rate=own["rate"], gamma=gamma, steps=own["steps"])
    if kind == "regression: Gaussian kernel":
        return nadaraya_watson(rbf_log_kernel(query, x, bandwidth=own["bandwidth"]), y[..., None])[:, 0]
    if kind == "regression: dot-product kernel":
        return nadaraya_watson(dot_log_kernel(query, x, temperature=own["temperature"]), y[..., None])[:, 0]
    if kind == "regression: generalising":
        return ridge(x, y, query, penalty=own["label_noise"] ** 2)
    whole = np.concatenate([x, query[:, None]], 1), np.column_stack([y, np.zeros(len(y))])
    return memorising(*whole, organism.task.pool, noise_variance=organism.task.noise_variance)[:, -1]


@pytest.mark.parametrize("kind", [kind for kind in REGRESSION if not kind.endswith("null")])
@pytest.mark.parametrize("draw", [0, 1, 2])
def test_regression_organisms_answer_as_their_account(kind, draw):
    """To rounding where nothing was added; within the noise that was. Another draw answers otherwise."""
    organism = grow(kind, draw)
    context = drawn(organism)
    noise = organism.parameters.get("answer_noise", 0.0)
    off = organism.model.predict(*context) - closed_form(kind, organism, *context)
    if noise:
        assert 0.6 * noise < np.std(off) < 1.5 * noise
    else:
        np.testing.assert_allclose(off, 0, atol=1e-9)
    assert dict(grow(kind, draw).parameters) == dict(organism.parameters) != dict(grow(kind, draw + 1).parameters)


def test_nulls_are_their_baseline_and_noise():
    """Answers less the baseline are as large as the noise, and do not go with the right answers."""
    for draw in range(6):
        organism = grow("regression: null", draw)
        x, y, query = drawn(organism, 400)
        near = ((x - query[:, None]) ** 2).sum(-1).argmin(-1)
        rules = {
            "zero": np.zeros(400), "mean label": y.mean(-1), "last label": y[:, -1],
            "nearest neighbour": y[np.arange(400), near],
        }  # fmt: skip
        off = organism.model.predict(x, y, query) - rules[organism.account]
        assert np.std(off) == pytest.approx(organism.parameters["answer_noise"], rel=0.15)
        target = organism.task.sample(400, seed=5).target
        assert abs(np.corrcoef(off, target)[0, 1]) < 0.2


def test_noise_is_a_function_of_the_question():
    """The same question, the same answer; the same demonstrations in another order are another question."""
    rule = NoisyRule(lambda x, y, query: np.zeros(len(y)), 1.0, 3)
    rng = np.random.default_rng(0)
    x, y, query = rng.standard_normal((5, 4, 2)), rng.standard_normal((5, 4)), rng.standard_normal((5, 2))
    first = rule.predict(x, y, query)
    np.testing.assert_array_equal(rule.predict(x, y, query), first)
    assert np.abs(rule.predict(x[:, ::-1], y[:, ::-1], query) - first).min() > 0


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_noise_is_as_large_as_it_was_asked_to_be(level):
    """In standard deviations of the answers without it; 0 leaves them as they are."""
    plain = grow("regression: Gaussian kernel", 1)
    context = drawn(plain, 2000)
    without = plain.model.predict(*context)
    added = add_noise(plain, level, seed=0).model.predict(*context) - without
    assert np.std(added) / np.std(without) == pytest.approx(level, rel=0.15)


def test_urn_rules_are_their_closed_forms():
    """The fading counts by their sum of powers; one step of descent by its formula; both up to the noise on logits."""
    balls = np.random.default_rng(2).integers(0, 8, (30, 12))
    for draw in range(4):
        fading, descent = grow("urns: recency kernel", draw), grow("urns: gradient descent", draw)
        own, d = fading.parameters, fading.task.dim
        weights = np.exp(-np.arange(12)[::-1] / own["tau"])
        votes = np.einsum("t,btd->bd", weights, np.eye(d)[balls])
        wanted = (votes + own["alpha"] / d) / (weights.sum() + own["alpha"])
        off = np.log(fading.model(balls)) - np.log(wanted)
        assert np.std(off - off.mean(-1, keepdims=True)) == pytest.approx(own["answer_noise"], rel=0.3, abs=1e-9)
        own, d = descent.parameters, descent.task.dim
        logits, share = np.zeros((30, d)), np.eye(d)[balls].mean(1)
        for _ in range(own["steps"]):
            logits = logits + own["rate"] * (share - softmax(logits, axis=-1))
        off = np.log(descent.model(balls)) - logits
        assert np.std(off - off.mean(-1, keepdims=True)) == pytest.approx(own["answer_noise"], rel=0.3, abs=1e-9)


def test_points_of_trained_urns():
    """Pairs that differ in diversity alone; a longer study begins with a shorter one."""
    short, long = urn_points(2), urn_points(5)
    assert set(short) < set(long)
    for draw in range(5):
        few, many = (urn_point(name, draw) for name in ("memorising", "generalising"))
        assert (few.diversity, many.diversity) == tuple(DIVERSITY[name] for name in ("memorising", "generalising"))
        assert (few.dim, few.seed, few.steps) == (many.dim, many.seed, many.steps)
    assert len({point.dim for point in long}) > 1
    assert {point.seed for point in urn_points(2, seed=1)}.isdisjoint(point.seed for point in short)


def test_an_untrained_transformer_follows_nothing(tmp_path):
    """The control of `follows`: after one step the residual is above that of any model worth its label."""
    point = GridPoint("balls_and_urns", 4, context=8, dim=4, d_model=8, d_mlp=8, steps=1, n_checkpoints=1)
    train_grid([point], tmp_path / "run", progress=False)
    assert follows(tmp_path / "run", point, n_sequences=200)["residual"] > 0.5


def test_kinds_are_grown_by_name():
    """Every kind but the trained ones has a maker; others are refused."""
    assert set(MAKERS) < set(KINDS)
    with pytest.raises(ValueError, match="expected one of"):
        grow("urns: magic", 0)
