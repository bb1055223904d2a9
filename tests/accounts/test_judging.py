"""Accounts judged by a model: shares against naive loops, planted models that must be named, and nothing to explain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import rel_entr

from mechicl.accounts import Account, Contexts, Free, Judgement, fit_account, judge_accounts
from mechicl.accounts.contexts import split_contexts
from mechicl.accounts.distances import ceiling_distance, prediction_distance
from mechicl.accounts.share_draws import draw_sums, expanded_tail


@dataclass(frozen=True, eq=False)
class Numbers:
    """Contexts of numbers alone."""

    x: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Numbers:
        return Numbers(self.x[rows])


def contexts(predict, n=120, length=4, noise=0.0, orders=4, seed=0) -> Contexts:
    """A model that says `predict(x)`, and in each order something else by `noise`."""
    rng = np.random.default_rng([seed, length])
    x = rng.standard_normal((n, length))
    said = predict(x)[:, None] + noise * rng.standard_normal((orders, n, 1))
    return Contexts(length, Numbers(x), said[0], said, x.mean(1, keepdims=True), np.arange(n))


ZERO = Account("zero", "baseline", lambda e: np.zeros((len(e), 1)))
LAST = Account("last", "baseline", lambda e: e.x[:, -1:])
MEAN = Account("mean", "gradient", lambda e, rate: rate * e.x.mean(1)[:, None], free=(Free("rate", 0.01, 10.0),))
MAXIMUM = Account("maximum", "kernel", lambda e: e.x.max(1)[:, None])
NESTED = Account(
    "first few",
    "bayes",
    lambda e, rate, k: rate * e.x[:, :k].mean(1)[:, None],
    free=(Free("rate", 0.01, 10.0),),
    choices={"k": (1, 2, 8)},
)
ALL = (ZERO, LAST, MEAN, MAXIMUM)


def judged(given, accounts=ALL, **options) -> Judgement:
    return judge_accounts(given, accounts, anchor="zero", n_boot=300, **options)


class TestDistances:
    def test_divergence_is_that_of_scipy(self):
        p, q = np.random.default_rng(0).dirichlet(np.ones(4), (2, 50))
        assert np.allclose(prediction_distance(p, q), rel_entr(p, q).sum(-1), atol=1e-5)
        assert (prediction_distance(p, p) < 1e-9).all()

    def test_a_zero_of_the_account_is_finite_and_a_zero_of_the_model_free(self):
        sure, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        assert prediction_distance(sure, other)[0] == pytest.approx(-np.log(1e-6), rel=1e-4)
        assert prediction_distance(sure, np.array([[0.5, 0.5]]))[0] == pytest.approx(np.log(2))

    def test_labels_that_may_not_be_answered_cost_nothing(self):
        of, by = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.5]])
        mask = np.array([[True, True, False]])
        assert prediction_distance(of, by, mask)[0] == pytest.approx(0, abs=1e-12)
        assert prediction_distance(of, by)[0] == pytest.approx(np.log(2), rel=1e-5)

    def test_the_ceiling_of_two_orders_is_half_their_squared_difference(self):
        given = contexts(lambda x: x.mean(1), noise=0.5, orders=2)
        assert np.allclose(ceiling_distance(given), (given.orders[0] - given.orders[1])[:, 0] ** 2 / 2)

    def test_the_ceiling_is_the_variance_that_orders_have(self):
        given = contexts(lambda x: x.mean(1), n=4000, noise=0.5)
        assert ceiling_distance(given).mean() == pytest.approx(0.25, rel=0.05)  # what the best account misses
        assert prediction_distance(given.model, given.truth).mean() == pytest.approx(0.25, rel=0.1)

    def test_without_orders_nothing_is_granted(self):
        assert (ceiling_distance(replace(contexts(lambda x: x.mean(1)), orders=None)) == 0).all()


class TestFits:
    def test_planted_numbers_come_back(self):
        given = [contexts(lambda x: 0.37 * x[:, :2].mean(1), length=length) for length in (4, 8)]
        found = fit_account(NESTED, given)
        assert found["k"] == 2
        assert found["rate"] == pytest.approx(0.37, abs=1e-4)

    @pytest.mark.parametrize("planted", [0.02, 0.2, 9.9])
    def test_numbers_near_the_end_of_their_range_come_back(self, planted):
        """The search starts at the end of the grid and must leave it."""
        linear = replace(MEAN, free=(Free("rate", 0.0, 10.0, "linear"),))
        assert fit_account(linear, [contexts(lambda x: planted * x.mean(1))])["rate"] == pytest.approx(
            planted, abs=1e-4
        )

    def test_one_set_of_numbers_for_all_lengths(self):
        """The fit minimises the pooled distance: of rates that differ by length, their weighted mean."""
        given = [contexts(lambda x, r=rate: r * x.mean(1), length=4, seed=i) for i, rate in enumerate((0.2, 0.6))]
        squares = [float((one.examples.x.mean(1) ** 2).sum()) for one in given]
        expected = (0.2 * squares[0] + 0.6 * squares[1]) / sum(squares)
        assert fit_account(MEAN, given)["rate"] == pytest.approx(expected, abs=1e-4)

    def test_an_account_that_can_never_predict_says_why(self):
        def refuse(examples, rate):
            raise ValueError("too fast")

        with pytest.raises(ValueError, match=r"'broken' can predict .* none of the numbers tried: too fast"):
            fit_account(
                Account("broken", "gradient", refuse, free=(Free("rate", 0.1, 1.0),)), [contexts(lambda x: x.mean(1))]
            )

    def test_a_fit_of_its_own_is_used(self):
        own = replace(MEAN, fit=lambda given: {"rate": 7.0})
        assert fit_account(own, [contexts(lambda x: x.mean(1))]) == {"rate": 7.0}


class TestJudging:
    def test_a_planted_account_is_named_with_its_numbers(self):
        found = judged([contexts(lambda x: 0.7 * x.mean(1), length=length) for length in (2, 8)])
        row = found.row("mean")
        assert (found.named, found.family) == ("mean", "gradient")
        assert row["share"] == pytest.approx(1, abs=1e-6)
        assert found.parameters["mean"]["rate"] == pytest.approx(0.7, abs=1e-4)
        assert found.row("zero")["share"] == 0
        assert "“mean” (rate = 0.7) is nearest to the model" in found.verdict

    def test_the_share_is_reached_where_orders_make_the_model_unreliable(self):
        found = judged([contexts(lambda x: x.mean(1), n=600, noise=0.5, length=4)])
        row = found.row("mean")
        assert row["distance"] > 0.2  # far from the model, as every account must be
        assert row["low"] < 1 < row["high"]

    def test_shares_equal_a_naive_computation(self):
        given = [contexts(lambda x: 0.7 * x.mean(1) + 0.2 * x.max(1), length=length) for length in (2, 8)]
        found = judged(given)
        _, held_out = split_contexts(given, seed=0)
        rate = found.parameters["mean"]["rate"]
        apart, anchor, ceiling = [], [], []
        for part in held_out:
            for i in range(len(part)):
                said, x = part.model[i, 0], part.examples.x[i]
                apart.append((said - rate * x.mean()) ** 2)
                anchor.append(said**2)
                ceiling.append(
                    ((part.orders[:, i, 0] - part.orders[:, i, 0].mean()) ** 2).sum() / (len(part.orders) - 1)
                )
        share = (np.mean(anchor) - np.mean(apart)) / (np.mean(anchor) - np.mean(ceiling))
        assert found.row("mean")["share"] == pytest.approx(share, abs=1e-12)

    def test_draws_equal_a_naive_bootstrap_over_clusters(self):
        rng = np.random.default_rng(3)
        clusters = np.array([0, 0, 1, 2, 2, 2])
        distances = {"a": [rng.random(6)], "zero": [rng.random(6)], "ceiling": [np.zeros(6)]}
        draws = draw_sums(distances, [clusters], n_boot=200, seed=5)
        for counts, mean in zip(draws.drawn, draws.means("a"), strict=True):
            rows = np.concatenate([np.flatnonzero(clusters == c) for c in range(3) for _ in range(counts[c])])
            assert mean == pytest.approx(distances["a"][0][rows].mean())

    def test_few_clusters_get_the_wider_tails_of_t_intervals(self):
        """The half width of a normal sample's mean: t times s over the root of n, s^2 with n - 1."""
        n = 8
        values = np.random.default_rng(1).standard_normal(n)
        draws = draw_sums({"a": [values]}, [np.arange(n)], n_boot=200_000, seed=0)
        low, high = draws.interval(draws.means("a"), 0.95)
        half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
        assert (high - low) / 2 == pytest.approx(half, rel=0.06)
        assert expanded_tail(0.95, 10_000) == pytest.approx(0.025, abs=1e-4)

    def test_with_few_clusters_none_is_named(self):
        found = judged([contexts(lambda x: 0.7 * x.mean(1), n=18)])
        assert found.best == "mean" and found.row("mean")["low"] > 0.9
        assert found.named is None
        assert "rests on 9 clusters of contexts, too few to name one" in found.verdict

    def test_a_model_that_ignores_its_context_leaves_nothing_to_explain(self):
        found = judged([contexts(lambda x: 0 * x.mean(1), noise=0.5)])
        assert not found.has_room
        assert found.named is None
        assert found.verdict.startswith("Nothing to explain")

    def test_probabilities_that_hardly_move_leave_nothing_to_explain(self):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((60, 2))
        p = 0.5 + 1e-3 * np.tanh(x[:, :1])
        model = np.concatenate([p, 1 - p], axis=1)
        half = Account("half", "baseline", lambda e: np.full((len(e), 2), 0.5))
        exact = Account("exact", "kernel", lambda e: 0.5 + 1e-3 * np.tanh(e.x[:, :1]) * [[1, -1]])
        given = Contexts(2, Numbers(x), model, None, np.full((60, 2), np.nan), np.arange(60))
        found = judge_accounts([given], (half, exact), anchor="half", n_boot=100)
        assert 0 < found.room_low < found.room_high < 1e-4
        assert found.named is None

    def test_a_baseline_is_never_named(self):
        found = judged([contexts(lambda x: x[:, -1])])
        assert found.best == "last"
        assert found.named is None
        assert found.verdict.startswith("No account beats the baselines")

    def test_an_account_that_leaves_most_of_the_room_is_not_named(self):
        found = judged([contexts(lambda x: np.sign(x[:, 0]) + 0.5 * x.mean(1), n=400)], (ZERO, MEAN))
        assert 0 < found.row("mean")["share"] < 0.5
        assert found.named is None
        assert "which may be below a half" in found.verdict

    def test_of_accounts_that_predict_alike_the_one_with_fewer_free_numbers_is_best(self):
        found = judged([contexts(lambda x: 0.7 * x.mean(1), length=length) for length in (4, 8)], (*ALL, NESTED))
        assert found.best == "mean"
        assert found.tied == ("first few",)
        assert found.to_apart().loc["mean", "first few"] < 1e-4  # these contexts cannot tell them apart

    def test_differences_are_paired(self):
        """Two accounts that are wrong together: their shares are uncertain, their difference is not."""
        twin = replace(LAST, name="twin", predict=lambda e: 1.01 * e.x[:, -1:])
        found = judged([contexts(lambda x: x.mean(1))], (*ALL, twin))
        difference, low, high = found.difference("last", "twin")
        assert found.row("last")["high"] - found.row("last")["low"] > 10 * (high - low)
        assert low < difference < high
        assert found.difference("twin", "last")[0] == pytest.approx(-difference)

    def test_intervals_hold_what_they_promise(self):
        """Coverage of the share of a mediocre account, over fresh models; its true share from many contexts."""

        def found(n, seed):
            given = [contexts(lambda x: x.mean(1) + 0.5 * np.abs(x[:, 0]), n=n, length=3, seed=seed)]
            fixed = replace(MEAN, fit=lambda _: {"rate": 1.0})
            return judge_accounts(given, (ZERO, fixed), anchor="zero", n_boot=200).row("mean")

        truth = found(20_000, 10_000)["share"]
        rows = [found(100, seed) for seed in range(80)]
        covered = np.mean([row["low"] <= truth <= row["high"] for row in rows])
        assert 0.85 <= covered <= 0.995

    def test_errors_against_the_truth_stand_beside(self):
        found = judged([contexts(lambda x: 0.5 * x.mean(1))])
        errors = found.truth.set_index("account")["error"]
        assert errors["mean"] == pytest.approx(errors["model"], rel=1e-6)  # it says what the model says
        assert errors["model"] < errors["zero"]

    def test_saved_and_loaded(self, tmp_path):
        found = judged([contexts(lambda x: x.mean(1), noise=0.1)])
        found.save(tmp_path / "judged")
        assert Judgement.load(tmp_path / "judged") == found


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"anchor": "nothing"}, r"anchor='nothing'; expected one of .* zero, last"),
            ({"margin": 1.0}, "expected a share of the room"),
            ({"n_boot": 10}, "at least 100"),
            ({"accounts": (ZERO, ZERO)}, "expected each once"),
            ({"accounts": (ZERO, replace(LAST, name="model"))}, "names are taken"),
            ({"contexts": []}, "expected some of each"),
        ],
    )
    def test_bad_input(self, change, message):
        options = {"contexts": [contexts(lambda x: x.mean(1))], "accounts": (ZERO, LAST), "anchor": "zero"} | change
        with pytest.raises(ValueError, match=message):
            judge_accounts(options.pop("contexts"), options.pop("accounts"), **options)

    def test_an_account_of_another_shape(self):
        wide = Account("wide", "kernel", lambda e: np.zeros((len(e), 2)))
        with pytest.raises(ValueError, match=r"'wide' gave shape .* one prediction a context"):
            judged([contexts(lambda x: x.mean(1))], (ZERO, wide))

    def test_predictions_that_are_no_probabilities(self):
        with pytest.raises(ValueError, match="no probabilities"):
            Contexts(1, Numbers(np.zeros((3, 1))), np.full((3, 2), 0.7), None, np.full((3, 2), np.nan), np.arange(3))

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Free("rate", 0.0, 1.0),
            lambda: Free("rate", 1.0, 1.0, "linear"),
            lambda: Free("rate", 0.1, 1.0, "square"),
            lambda: Account("a", "magic", np.sum),
            lambda: Account("a", "kernel", np.sum, choices={"k": ()}),
            lambda: Account("a", "kernel", np.sum, free=(Free("k", 1.0, 2.0),), choices={"k": (1,)}),
        ],
    )
    def test_accounts_that_cannot_be(self, make):
        with pytest.raises(ValueError, match="expected"):
            make()

    def test_too_few_clusters(self):
        with pytest.raises(ValueError, match="expected 4 or more"):
            judged([contexts(lambda x: x.mean(1), n=3)])
