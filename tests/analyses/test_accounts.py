"""Accounts side by side: models of every kind, accounts of one's own, and what is refused before anything is read."""

from __future__ import annotations

import numpy as np
import pytest

from mechicl.accounts import Account
from mechicl.analyses import AccountTable, compare_accounts
from mechicl.analyses.rivals.kinds import KINDS, kind_of
from mechicl.organisms import load_regressor, planted_ife, planted_null, planted_priming
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.grid import load_grid_model
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

QUICK = {"n_boot": 200, "progress": False}
TASK = RegressionTask(dim=4, n_demos=8)


def test_hand_built_descent_is_named_with_its_steps_and_rate() -> None:
    model = descending_transformer(4, rate=0.9, steps=2)
    found = compare_accounts(model, TASK, accounts=["gradient descent", "Gaussian kernel", "mean label"], **QUICK)
    assert (found.named, found.family) == ("gradient descent", "gradient")
    assert found.parameters["gradient descent"]["steps"] == 2
    assert found.parameters["gradient descent"]["rate"] == pytest.approx(0.9, rel=1e-3)
    assert found.anchor == "zero"  # counted from, though it was not asked for
    cosine = found.mechanisms.set_index(["account", "measure"])["estimate"]["gradient descent", "cosine of slopes"]
    assert cosine == pytest.approx(1, abs=1e-6)


def test_a_trained_model_and_its_provenance(tmp_path) -> None:
    found = compare_accounts(load_regressor("lsa-1"), RegressionTask(dim=10, n_demos=10, scale=0.5), **QUICK)
    assert found.named == "gradient descent"
    assert found.parameters["gradient descent"]["rate"] == pytest.approx(6.06, rel=0.02)  # the best rate, closed form
    assert found.provenance.model == "lsa-1"
    found.save(tmp_path / "found")
    assert AccountTable.load(tmp_path / "found") == found


def test_models_that_memorise_and_generalise() -> None:
    for name, diversity, account in (("urns-memory", 4, "memorising"), ("urns-general", 1024, "generalising")):
        found = compare_accounts(load_grid_model(name), UrnTask(diversity=diversity), n_contexts=120, **QUICK)
        assert found.named == account
        assert found.truth.set_index("account")["error"]["model"] < found.truth.set_index("account")["error"]["uniform"]


@pytest.mark.parametrize(
    ("plant", "account"), [(planted_ife, "delta rule"), (planted_priming, "constant boost"), (planted_null, None)]
)
def test_planted_priming(plant, account) -> None:
    planted = plant(n_verbs=22, seed=3)
    found = compare_accounts(planted.model, planted.corpus, n_contexts=160, **QUICK)
    assert found.named == account
    assert found.has_room == (account is not None)


def test_an_account_of_ones_own_beside_the_known() -> None:
    half = Account("half the mean", "kernel", lambda examples: examples.y.mean(1)[:, None] / 2)
    found = compare_accounts(
        lambda x, y, query: y.mean(-1) / 2, TASK, accounts=[half, "gradient descent", "zero"], n_contexts=60, **QUICK
    )
    assert found.named == "half the mean"
    assert found.row("half the mean")["share"] == pytest.approx(1)


def test_seeds_repeat() -> None:
    first, again, other = (
        compare_accounts(descending_transformer(4, rate=0.9), TASK, n_contexts=60, seed=seed, **QUICK).frame["distance"]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_kind_names_the_accounts_that_it_has() -> None:
    """The names that are checked before a model is read are those that the accounts have."""
    contexts = KINDS[0].read(descending_transformer(4, rate=0.9), TASK, {"n_contexts": 10}, seed=0, store=None)
    own = {one.name for one in KINDS[0].accounts(contexts)}
    assert own <= set(KINDS[0].names)
    for kind in KINDS:
        assert kind.anchor in kind.names
        assert len(set(kind.names)) == len(kind.names)


class TestRefusals:
    def test_an_unknown_account(self) -> None:
        with pytest.raises(
            ValueError, match=r"got the account 'newton' for a task of regression; expected some of zero"
        ):
            compare_accounts(None, TASK, accounts=["newton"])  # the model is not even looked at

    def test_an_unknown_anchor(self) -> None:
        with pytest.raises(ValueError, match="'uniform' for a task of regression"):
            compare_accounts(None, TASK, anchor="uniform")

    def test_lengths_for_priming(self) -> None:
        planted = planted_null(n_verbs=6, seed=0)
        with pytest.raises(ValueError, match="a context is one prime there"):
            compare_accounts(planted.model, planted.corpus, lengths=[2])

    def test_a_task_of_no_kind(self) -> None:
        with pytest.raises(
            TypeError, match=r"got a task of type str; expected one of RegressionTask, .* PrimingCorpus"
        ):
            kind_of("sentiment")
