"""Slopes on the error: those of least squares with dummies, permutations by force, error rates as promised."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from mechicl.analyses.gradient.error_slopes import ErrorSlope


def made_up(seed: int, n_verbs: int = 8, **effects: float) -> pd.DataFrame:
    """Crossed rows as of a corpus in which no target has its prime's verb."""
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=n_verbs)
    rows = [
        {"prime": f"{v}-{t}", "verb": f"v{v}", "target": f"t{t}", "form": form, "lean": sign * bias[t % n_verbs],
         "error": -sign * bias[v] + 0.3 * rng.normal() + (form == "DO"), "other": rng.normal() + bias[v]}
        for t in range(2 * n_verbs) for v in range(n_verbs) if v != t % n_verbs
        for form, sign in (("PD", 1), ("DO", -1))
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    noise = dict(zip(frame["verb"].unique(), rng.normal(size=n_verbs), strict=True))
    frame["y"] = (
        effects.get("slope", 0) * frame["error"] + effects.get("lean", 0) * frame["lean"]
        + effects.get("other", 0) * frame["other"] + effects.get("verb", 0) * frame["verb"].map(noise)
        + effects.get("noise", 0) * rng.normal(size=len(frame))
    )  # fmt: skip
    return frame


@pytest.mark.parametrize("by_target", [True, False])
def test_slopes_are_those_of_least_squares_with_dummies(by_target: bool) -> None:
    rows = made_up(0, slope=0.7, lean=1, other=0.4, noise=1)
    rows["cell"] = rows["target"] + rows["form"] if by_target else rows["form"]
    plain = ErrorSlope.of(rows, "y", "error", by_target=by_target)
    np.testing.assert_allclose(plain.estimate, smf.ols("y ~ error + C(cell)", rows).fit().params["error"])
    rows["flat"], rows["again"] = 3.0, 2 * rows["other"] + 1
    full = ErrorSlope.of(rows, "y", "error", by_target=by_target, covariates=("other", "flat", "again"))
    np.testing.assert_allclose(full.estimate, smf.ols("y ~ error + other + C(cell)", rows).fit().params["error"])
    assert full.covariates == ("other",) and full.dropped == ("flat", "again")
    same = ErrorSlope.of(rows.assign(copy=rows["error"]), "y", "error", by_target=by_target, covariates=("copy",))
    assert np.isnan(same.estimate) and not same.is_defined


def test_targets_that_lean_against_their_primes_verbs_are_taken_out() -> None:
    trap = made_up(1, lean=1)  # nothing is primed; verbs that lean to a form meet targets that lean away
    assert abs(ErrorSlope.of(trap, "y", "error", by_target=False).estimate) > 0.05
    np.testing.assert_allclose(ErrorSlope.of(trap, "y", "error", by_target=True).estimate, 0, atol=1e-12)


def test_permuted_slopes_are_those_of_permuted_errors() -> None:
    rows = made_up(2, slope=0.5, noise=1)
    fit = ErrorSlope.of(rows, "y", "error", by_target=True, covariates=("other",))
    p, slopes = fit.permuted(n_permutations=100, seed=5)
    rng = np.random.default_rng(5)  # the same orders and signs, then every regression anew
    verbs = sorted(rows["verb"].unique())
    orders = rng.permuted(np.broadcast_to(np.arange(8), (100, 8)), axis=1)
    signs = rng.choice([-1.0, 1.0], size=orders.shape)
    means = rows.groupby(["verb", "form"])["error"].mean()
    extreme, expected = 0, []
    for order, sign in zip(orders, signs, strict=True):
        new = {verb: verbs[i] for verb, i in zip(verbs, order, strict=True)}
        own = rows["error"].to_numpy() - means.loc[list(zip(rows["verb"], rows["form"], strict=True))].to_numpy()
        lent = means.loc[list(zip(rows["verb"].map(new), rows["form"], strict=True))].to_numpy()
        moved = rows.assign(error=lent + own * rows["verb"].map(dict(zip(verbs, sign, strict=True))).to_numpy())
        again = ErrorSlope.of(moved, "y", "error", by_target=True, covariates=("other",))
        extreme += abs(again.r) >= abs(fit.r) * (1 - 1e-10)
        if (order != np.arange(8)).all():
            expected.append(again.estimate)
    np.testing.assert_allclose(slopes, expected, atol=1e-10)
    assert p == (1 + extreme) / 101


def test_verb_effects_that_ignore_the_error_are_found_as_often_as_promised() -> None:
    p, covered = [], 0
    for seed in range(80):
        fit = ErrorSlope.of(made_up(seed, verb=1, noise=0.5), "y", "error", by_target=True)
        p.append(fit.permuted(n_permutations=200, seed=0)[0])
        interval = fit.interval(n_boot=200, level=0.95, seed=0)
        covered += interval.low <= 0 <= interval.high
    assert np.mean(np.array(p) <= 0.05) <= 0.12 and 0.35 < np.mean(p) < 0.65  # 3 standard errors
    assert covered / 80 > 0.8
