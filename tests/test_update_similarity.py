"""Similarity of updates: exact where a context is a gradient step, 0 for independent updates, biased where warned."""

import numpy as np
import pytest
import scipy.stats
import torch

from mechicl.update_similarity import (
    Effects,
    Similarity,
    effect_correlation,
    implied_attention,
    kendall,
    recall_of_tuned,
    sim_am,
    sim_aou,
)


def test_a_context_that_is_a_gradient_step_has_cosine_one() -> None:
    """Linear attention over (x_t, y_t - W x_t) is one step on W: forward pass against autograd."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    icl, zero_shot, tuned, scores, implied = [], [], [], [], []
    for _ in range(5):
        x, y, query = draw(8, 6), draw(8, 4), draw(6)
        w = draw(4, 6).requires_grad_()
        loss = 0.5 * ((x @ w.T - y) ** 2).sum()
        step = -0.1 * torch.autograd.grad(loss, w)[0]
        with torch.no_grad():
            values, attention = 0.1 * (y - x @ w.T), x @ query
            zero_shot.append((w @ query).numpy()[None])
            icl.append((w @ query + values.T @ attention).numpy()[None])
            tuned.append(((w + step) @ query).numpy()[None])
            scores.append(attention.numpy()[None, None])
            implied.append(implied_attention(x.numpy()[None], query.numpy()[None]))
    found = sim_aou(np.stack(icl), np.stack(zero_shot), np.stack(tuned))
    np.testing.assert_allclose(found.values, 1, atol=1e-12)
    np.testing.assert_allclose(found.overall, 1, atol=1e-12)
    np.testing.assert_allclose(kendall(scores, implied).values, 1)
    backwards = sim_aou(np.stack(icl), np.stack(zero_shot), 2 * np.stack(zero_shot) - np.stack(tuned))
    np.testing.assert_allclose(backwards.values, -1, atol=1e-12)


def test_independent_updates_have_none_and_normalising_makes_them_some() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2_000, 1, 400))
    one, other = (np.sqrt(3) * rng.normal(size=z.shape) for _ in range(2))
    fair = sim_aou(z + one, z, z + other, n_boot=200)
    assert abs(fair.overall[0]) < 0.005 and fair.overall[1] < 0 < fair.overall[2]
    with pytest.warns(RuntimeWarning, match="above 0 for independent updates"):
        biased = sim_aou(z + one, z, z + other, normalised=True, n_boot=200)
    # |z + r| = 2 |z|, so both differences hold -z / 2: cosine (1/4) / (1/4 + 3/4)
    assert abs(biased.overall[0] - 0.25) < 0.005


def test_scores_of_queries_of_different_lengths() -> None:
    rng = np.random.default_rng(1)
    zero = [rng.normal(size=(3, 4, n)) for n in (2, 5, 7)]
    move = [rng.normal(size=own.shape) for own in zero]
    icl, tuned = ([z + k * m for z, m in zip(zero, move, strict=True)] for k in (2.0, 0.1))
    np.testing.assert_allclose(sim_am(icl, zero, tuned).values, 1)
    mixed = [own.copy() for own in tuned]
    for own, z in zip(mixed, zero, strict=True):
        own[:, 0] = 2 * z[:, 0] - own[:, 0]  # one head of four moves the other way
        own[0, 1] = z[0, 1]  # and one, in the first layer, not at all
    values = sim_am(icl, zero, mixed).values
    np.testing.assert_allclose(values[:, 1:], 0.5)
    np.testing.assert_allclose(values[:, 0], 1 / 3)
    unrelated = [[z + rng.normal(size=z.shape) for z in zero * 100] for _ in range(2)]
    chance = sim_am(unrelated[0], zero * 100, unrelated[1], n_boot=200)
    assert chance.overall[1] < 0 < chance.overall[2] and abs(chance.overall[0]) < 0.03


def test_kendall_is_scipys_and_zero_by_chance() -> None:
    rng = np.random.default_rng(2)
    a = [rng.integers(0, 6, size=(2, 3, n)).astype(float) for n in (9, 14)]
    b = [rng.integers(0, 6, size=(2, n)).astype(float) for n in (9, 14)]
    expected = [
        [np.mean([scipy.stats.kendalltau(h, own).statistic for h in heads]) for heads, own in zip(x, y, strict=True)]
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(kendall(a, b).values, expected, atol=1e-12)
    one = [rng.normal(size=(1, 2, 30)) for _ in range(200)]
    other = [rng.normal(size=(1, 30)) for _ in range(200)]
    chance = kendall(one, other, n_boot=200)
    assert chance.low[0] < 0 < chance.high[0] and abs(chance.overall[0]) < 0.02


def test_an_update_of_size_zero_has_no_direction() -> None:
    z = np.ones((3, 2, 4))
    moved = z + np.arange(24.0).reshape(3, 2, 4)
    moved[0, 0] = z[0, 0]
    found = sim_aou(moved, z, moved)
    assert np.isnan(found.values[0, 0]) and np.isfinite(found.values[1:]).all()
    np.testing.assert_allclose(found.estimate, 1)
    none = sim_aou(z, z, moved)
    assert np.isnan(none.estimate).all() and np.isnan(none.overall).all()


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    by_query = np.repeat(rng.normal(size=(20, 1)), 10, axis=0)  # ten equal items a query
    apart = Similarity.of(by_query, n_boot=500)
    together = Similarity.of(by_query, clusters=np.repeat(np.arange(20), 10), n_boot=500)
    assert np.ptp(together.overall[1:]) > 2.5 * np.ptp(apart.overall[1:])
    assert together.overall[0] == pytest.approx(apart.overall[0])


def test_recall_stands_beside_its_chance() -> None:
    zero_shot = np.array([0, 0, 0, 0, 1, 1, 0, 0], bool)
    tuned = np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)
    icl = np.array([1, 1, 1, 0, 1, 1, 0, 1], bool)
    found = recall_of_tuned(icl, zero_shot, tuned)
    assert (found.n, found.n_others) == (4, 4)
    assert found.estimate[0] == 0.75 and found.chance[0] == 0.75 and found.chance_before[0] == 0.5
    assert found.estimate[1:] == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, 3 of 4
    assert found.difference[0] == 0 and found.difference[1] < -0.3 and found.difference[2] > 0.3
    nothing = recall_of_tuned(icl, np.ones(8, bool), tuned)
    assert np.isnan(nothing.estimate).all() and nothing.n == 0


def correlated(n: int, rho: float, seed: int) -> Effects:
    """Outcomes of correlation rho, and the baseline that both effects have subtracted."""
    rng = np.random.default_rng(seed)
    a, noise, z = rng.normal(size=(3, n))
    b = rho * a + np.sqrt(1 - rho**2) * noise
    return Effects(a - z, b - z, z)


def test_the_shared_baseline_is_taken_out() -> None:
    unrelated = correlated(1_500, 0.0, 0)
    fair = effect_correlation(unrelated, n_boot=200)
    naive = effect_correlation(unrelated, adjusted=False, n_boot=200)
    assert fair.low < 0 < fair.high and abs(fair.estimate) < 0.06
    assert abs(naive.estimate - 0.5) < 0.06
    related = effect_correlation(correlated(1_500, 0.6, 1), n_boot=200)
    assert related.low < 0.6 < related.high


def test_correlation_is_that_of_least_squares_residuals() -> None:
    effects = correlated(40, 0.5, 2)
    groups = np.arange(40) % 3
    plain = effect_correlation(effects, adjusted=False, n_boot=100)
    assert plain.estimate == pytest.approx(np.corrcoef(effects.icl, effects.tuned)[0, 1])
    covariates = np.column_stack([np.eye(3)[groups], effects.baseline])
    left = [y - covariates @ np.linalg.lstsq(covariates, y, rcond=None)[0] for y in (effects.icl, effects.tuned)]
    within = effect_correlation(effects, groups=groups, n_boot=100)
    assert within.estimate == pytest.approx(np.corrcoef(*left)[0, 1])


def test_groups_that_differ_are_no_agreement_within_them() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat([0, 1], 100)
    effects = Effects(5 * groups + rng.normal(size=200), 5 * groups + rng.normal(size=200), rng.normal(size=200))
    assert effect_correlation(effects, n_boot=100).estimate > 0.7
    within = effect_correlation(effects, groups=groups, n_boot=500)
    assert within.low < 0 < within.high


def test_the_difference_from_a_control_is_paired() -> None:
    strong, weak = correlated(100, 0.9, 5), correlated(100, 0.0, 6)
    gap = effect_correlation(strong, against=weak, n_boot=500)
    assert gap.estimate == pytest.approx(
        effect_correlation(strong, n_boot=100).estimate - effect_correlation(weak, n_boot=100).estimate
    )
    assert gap.low > 0.4
    same = effect_correlation(strong, against=strong, n_boot=100)
    assert same.estimate == same.low == same.high == 0


def test_bad_input_is_refused() -> None:
    z = np.zeros((2, 1, 3))
    with pytest.raises(ValueError, match="`tuned` holds numbers that are not finite"):
        sim_aou(z, z, np.full_like(z, np.inf))
    with pytest.raises(ValueError, match="3 items and 2 cluster labels"):
        Similarity.of(np.zeros((3, 1)), clusters=[1, 2])
    with pytest.raises(ValueError, match="expected one array an item"):
        kendall([np.zeros((1, 1, 2))], [])
    with pytest.raises(ValueError, match="at least 8 items"):
        effect_correlation(Effects(np.zeros(2), np.zeros(2), np.zeros(2)))
    with pytest.raises(ValueError, match="on the whole sample"):
        effect_correlation(Effects(np.zeros(9), np.arange(9.0), np.arange(9.0) ** 2))
