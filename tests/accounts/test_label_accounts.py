"""Accounts of labels: planted ones are recovered with their numbers, votes are a loop's, masks and refusals hold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.judging import judge_accounts
from mechicl.accounts.labels import ANCHOR, LabelExamples, label_accounts

BIAS = (0.4, -0.1, -0.3)
PLANTED: dict[str, dict[str, Any]] = {
    "attention of one head": {"head": "L3H5", "mixed": 0.1, "sharpness": 1.7},
    "kernel of the inputs": {"kernel": "b", "temperature": 0.4, "mixed": 0.1, "sharpness": 1.7},
    "gradient step": {"rate": "0.3", "mixed": 0.2, "sharpness": 1.5},
    "prior and label frequency": {"prior": 0.7, "counts": 1.3, "pseudo_count": 0.8},
    "copy last": {"mixed": 0.2, "sharpness": 1.2},
}


def examples(n: int, n_demos: int, rng: np.random.Generator, *, masked: bool = False) -> LabelExamples:
    labels = rng.integers(3, size=(n, n_demos))
    mask = None
    if masked:
        mask = np.ones((n, 3), dtype=bool)
        mask[np.arange(n), rng.integers(3, size=n)] = False
    shown = np.eye(3)[labels] * (1.0 if mask is None else mask[:, None])

    def log_probs() -> np.ndarray:
        p = rng.dirichlet(np.ones(3), size=n) * (1.0 if mask is None else mask)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum(-1, keepdims=True))

    return LabelExamples(
        shown=shown,
        zero_shot=log_probs(),
        kernels={name: rng.normal(size=(n, n_demos)) for name in "ab"},
        attention={f"L{i // 6}H{i % 6}": rng.dirichlet(np.full(n_demos, 0.5), size=n) for i in range(30)},
        stepped={rate: log_probs() for rate in ("0.1", "0.3", "1")},
        mask=mask,
    )


def account(examples: LabelExamples, name: str) -> Account:
    return next(one for one in label_accounts(examples) if one.name == name)


def contexts(name: str, *, masked: bool = False) -> list[Contexts]:
    """What a model that is the account would say."""
    rng = np.random.default_rng(1)
    found = []
    for n_demos in (2, 4, 8):
        own = examples(24, n_demos, rng, masked=masked)
        given = PLANTED[name] | ({} if masked else {"bias": BIAS})
        model = account(own, name).predict(own, **given)
        truth = np.full((24, 3), np.nan)
        found.append(Contexts(n_demos, own, model, None, truth, np.arange(24), own.mask))
    return found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_account_is_recovered_with_its_numbers(name: str, masked: bool) -> None:
    made = contexts(name, masked=masked)
    one = account(made[0].examples, name)
    found = one.fit(made) if one.fit is not None else {}
    for part in made:
        np.testing.assert_allclose(one.predict(part.examples, **found), part.model, atol=1e-4)
    if name == "copy last":  # only the odds of the last label against others are known, not what they are made of
        return
    for key, value in PLANTED[name].items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=0.01))
    if not masked:
        np.testing.assert_allclose(found["bias"], BIAS, atol=1e-3)


def test_the_planted_head_is_named_and_has_no_share_once_labels_are_shuffled() -> None:
    made = contexts("attention of one head")
    own = judge_accounts(made, label_accounts(made[0].examples), anchor=ANCHOR, n_boot=200)
    assert own.named == "attention of one head" and own.row(own.named)["share"] > 0.999
    rng = np.random.default_rng(2)
    shuffled = [
        replace(one, examples=replace(one.examples, shown=rng.permutation(one.examples.shown, axis=0))) for one in made
    ]
    null = judge_accounts(shuffled, label_accounts(made[0].examples), anchor=ANCHOR, n_boot=200)
    row = null.row("attention of one head")
    assert null.named is None and row["share"] < 0.1 and row["low"] < 0.05


def test_votes_are_those_of_a_loop() -> None:
    own = examples(6, 4, np.random.default_rng(3), masked=True)
    weights = np.random.default_rng(4).random((2, 6, 4))
    found = own.votes(weights)
    for s in range(2):
        for i in range(6):
            expected = np.zeros(3)
            for demo in range(4):
                expected += weights[s, i, demo] * own.shown[i, demo]
            total = expected.sum()
            by_hand = expected / total if total > 0 else own.allowed[i] / own.allowed[i].sum()
            np.testing.assert_allclose(found[s, i], by_hand)


def test_every_account_gives_probabilities_of_allowed_labels_alone() -> None:
    made = contexts("gradient step", masked=True)
    for one in label_accounts(made[0].examples):
        found = {} if one.fit is None else one.fit(made)
        for part in made:
            p = one.predict(part.examples, **found)
            np.testing.assert_allclose(p.sum(-1), 1)
            assert (p[~part.examples.allowed] == 0).all(), one.name


def test_the_constant_is_the_mean_answer_and_order_changes_only_copies() -> None:
    made = contexts("kernel of the inputs")
    one = account(made[0].examples, "constant")
    found = one.fit(made) if one.fit is not None else {}
    mean = np.concatenate([part.model for part in made]).mean(0)
    np.testing.assert_allclose(one.predict(made[0].examples, **found), np.tile(mean, (24, 1)), atol=1e-6)
    own = made[2].examples
    turned = replace(
        own,
        shown=own.shown[:, ::-1],
        kernels={name: k[:, ::-1] for name, k in own.kernels.items()},
        attention={name: k[:, ::-1] for name, k in own.attention.items()},
    )
    for name, given in PLANTED.items():
        one = account(own, name)
        same = np.allclose(one.predict(own, **given), one.predict(turned, **given))
        assert same == (name != "copy last"), name


def test_accounts_without_their_numbers_are_left_out_and_bad_examples_refused() -> None:
    own = examples(4, 3, np.random.default_rng(5))
    bare = replace(own, kernels={}, attention={}, stepped={})
    assert {one.family for one in label_accounts(bare)} == {"baseline", "bayes"}
    assert len(own.take(np.array([0, 2]))) == 2 and own.take(np.array([2])).kernels["a"].shape == (1, 3)
    for wrong, said in (
        ({"attention": {"L0H0": -np.ones((4, 3))}}, "below 0"),
        ({"stepped": {"1": np.full((4, 3), np.nan)}}, "not finite"),
        ({"kernels": {"a": np.full((4, 3), np.inf)}}, "not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(own, **wrong)
