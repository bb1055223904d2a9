"""What is inside models of numeric tasks: hand-built models, functions whose insides are known, no-op patches."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from mechicl.accounts.classes import class_accounts
from mechicl.accounts.judging import judge_accounts
from mechicl.accounts.regression import regression_accounts
from mechicl.analyses.rivals import inside_attention
from mechicl.analyses.rivals.inside_attention import attention_kernels, replaced_attention
from mechicl.analyses.rivals.inside_numeric import COLUMNS, account_slopes, numeric_mechanisms
from mechicl.analyses.rivals.numeric import read_numeric
from mechicl.organisms import load_classifier
from mechicl.organisms.classification_recipes import find_classifier
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.grid import grid_model_folder, load_grid_model, read_point
from mechicl.predictors import classification, urns
from mechicl.predictors.gradient import gradient_descent_weights
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

TASK = RegressionTask(dim=3, n_demos=8, inputs="normal", noise=0.1)
URNS = UrnTask(dim=4, context=16, diversity=5)
QUICK: dict[str, Any] = {"n_boot": 200}


def row_of(frame, account, measure):
    (found,) = frame[(frame["account"] == account) & (frame["measure"] == measure)].to_dict("records")
    return found


@pytest.fixture(scope="module")
def classifier():
    model, task = load_classifier("classifier-general"), find_classifier("classifier-general").task
    return model, task, read_numeric(model, task, n_contexts=60, n_orders=0)


def test_the_slope_of_a_descent_is_its_weights():
    examples = read_numeric(descending_transformer(3, rate=0.2), TASK, n_contexts=10, n_orders=0)[0].examples
    descent = {one.name: one for one in regression_accounts(TASK)}["gradient descent"]
    found = account_slopes(descent, examples, {"steps": 2, "loss": "mean", "rate": 0.2})
    assert found == pytest.approx(gradient_descent_weights(examples.x, examples.y, rate=0.2, steps=2), abs=1e-8)


def test_a_transformer_that_descends_has_the_slopes_of_descent():
    model = descending_transformer(3, rate=0.2, steps=1)
    contexts = read_numeric(model, TASK, n_contexts=60, n_orders=0)
    found = numeric_mechanisms(model, TASK, contexts, **QUICK)
    assert list(found) == COLUMNS
    row = row_of(found, "gradient descent", "cosine of slopes")
    assert row["estimate"] == pytest.approx(1, abs=1e-6)
    assert row["low"] <= row["estimate"] <= row["high"] + 1e-12
    assert abs(row["control"]) < 0.6 and "untrained" in row["note"]
    other = row_of(found, "Gaussian kernel", "cosine of slopes")
    assert other["high"] < 0.999
    assert "zero" not in set(found["account"])


def test_a_function_is_held_against_its_law_in_other_contexts():
    descent = descending_transformer(3, rate=0.2, steps=1).predict
    contexts = read_numeric(lambda x, y, q: descent(x, y, q), TASK, lengths=(8,), n_contexts=60, n_orders=0)
    judged = judge_accounts(contexts, regression_accounts(TASK)[:5], anchor="zero", n_boot=200)
    found = numeric_mechanisms(lambda x, y, q: descent(x, y, q), TASK, contexts, judged, **QUICK)
    row = row_of(found, "gradient descent", "cosine of slopes")
    assert row["estimate"] == pytest.approx(1, abs=1e-6)
    assert abs(row["control"]) < 0.4 and "another context" in row["note"]
    assert set(found["account"]) == {"gradient descent"}  # of the judged ones, those that are no baseline


@pytest.mark.parametrize("odds", [-2.0, 0.7])
def test_the_odds_of_a_mixture_are_found(odds):
    def mixture(balls):
        shown = np.column_stack([balls, np.zeros(len(balls), int)])
        memory, general = urns.memorising(shown, URNS.pool)[:, -1], urns.generalising(shown, 4)[:, -1]
        return expit(odds) * memory + (1 - expit(odds)) * general

    contexts = read_numeric(mixture, URNS, n_contexts=60, n_orders=0)
    row = row_of(numeric_mechanisms(mixture, URNS, contexts, **QUICK), "mixture of strategies", "strategy log-odds")
    assert row["estimate"] == pytest.approx(odds, abs=0.01)
    assert row["low"] - 0.01 < odds < row["high"] + 0.01
    assert "beyond" not in row["note"] and np.isnan(row["control"])


def test_odds_at_the_end_are_said_to_be_only_bounded():
    def memory(balls):
        return urns.memorising(np.column_stack([balls, np.zeros(len(balls), int)]), URNS.pool)[:, -1]

    contexts = read_numeric(memory, URNS, n_contexts=40, n_orders=0)
    row = row_of(numeric_mechanisms(memory, URNS, contexts, **QUICK), "mixture of strategies", "strategy log-odds")
    assert row["estimate"] == 8.0
    assert "beyond" in row["note"]


def test_a_heads_own_weights_change_nothing(classifier, monkeypatch):
    """The no-op patch: shares are exactly 1; trivial weights in place of the account's: exactly 0."""
    model, _, contexts = classifier

    def own(part):
        found = model.query_attention(part.x, part.y, part.query)[:, 0]
        return found / found.sum(-1, keepdims=True)

    monkeypatch.setattr(
        inside_attention, "_givers", lambda examples, fitted: {"own": own, "trivial": inside_attention._trivial}
    )
    rows = {row["account"]: row for row in replaced_attention(model, contexts, {}, **QUICK)}
    assert rows["own"]["estimate"] == pytest.approx(1, abs=1e-6)
    assert rows["own"]["control"] < 0.5
    assert rows["trivial"]["estimate"] == pytest.approx(0, abs=1e-12)


def test_a_classifier_that_compares_attends_by_the_kernel(classifier):
    model, task, contexts = classifier
    hooks = len(model.blocks[0].attn.hook_pattern._forward_hooks)
    before = [weight.clone() for weight in model.parameters()]
    fitted: dict[str, dict[str, Any]] = {name: {} for name in ("generalising", "memorising")}
    (row,) = replaced_attention(model, contexts, fitted, **QUICK)
    assert row["account"] == "generalising"
    assert row["low"] > 0.3 and row["control"] < 0.2
    (kernel,) = attention_kernels(model, task, ["generalising", "memorising"])
    assert 0.6 < kernel["low"] < kernel["estimate"] < kernel["high"] < 1
    assert abs(kernel["control"]) < 0.05
    assert len(model.blocks[0].attn.hook_pattern._forward_hooks) == hooks
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_function_of_pairs_has_odds_alone(classifier):
    _, task, _ = classifier

    def general(x, y, query):
        return classification.generalising(query, x, y, noise=task.noise)

    contexts = read_numeric(general, task, lengths=(31,), n_contexts=40, n_orders=0)
    judged = judge_accounts(contexts, class_accounts(task), anchor="uniform", n_boot=200)
    assert judged.named == "generalising"
    found = numeric_mechanisms(general, task, contexts, judged, **QUICK)
    assert list(found["measure"]) == ["strategy log-odds"]
    assert found["estimate"][0] == -8.0


def test_urns_are_read_by_equal_weights():
    model, task = load_grid_model("urns-memory"), read_point(grid_model_folder("urns-memory")).task
    contexts = read_numeric(model, task, lengths=(4, 20), n_contexts=30, n_orders=0)
    fitted: dict[str, dict[str, Any]] = {"generalising": {}, "memorising": {}, "recency kernel": {"tau": 0.4}}
    rows = {row["account"]: row for row in replaced_attention(model, contexts, fitted, **QUICK)}
    assert rows["memorising"]["low"] > 0.9
    assert rows["memorising"]["estimate"] == rows["generalising"]["estimate"]
    assert rows["recency kernel"]["estimate"] < 0.6  # it does not look at the last balls alone
    assert 0 < rows["memorising"]["control"] < rows["memorising"]["estimate"]


def test_errors():
    contexts = read_numeric(lambda x, y, q: q[..., 0], TASK, lengths=(8,), n_contexts=8, n_orders=0)
    with pytest.raises(ValueError, match="cluster"):
        numeric_mechanisms(lambda x, y, q: q[..., 0], TASK, [contexts[0].take(np.arange(3))])
