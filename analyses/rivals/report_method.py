"""What a report says of how accounts were compared, and of what the comparison does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.wording import number

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable

SOURCES = {
    "priming": ("zhou2024error",),
    "few-shot": ("han2023kernel", "dai2022gpt"),
    "regression": ("oswald2022gradient", "wurgaft2025strategies"),
    "urns": ("wurgaft2025strategies",),
    "classification": ("han2023kernel", "wurgaft2025strategies"),
}
CONTEXTS = {
    "priming": "A context is one prime; the answer is the choice between both forms of the target. The ceiling is how "
    "far the target moves alike after other primes with the same verb in the same form: what the prime's other words "
    "do is known to the gradient step alone, which may pass it.",
    "few-shot": "A context is a prompt of demonstrations, texts with labels; the answer is the label of one more text. "
    "All accounts pass through one link with numbers of their own (sharpness, and how often any label is said), so "
    "that none wins by calibration. The ceiling is how much the model's own answer changes with the order of the same "
    "demonstrations.",
}
NUMERIC = (
    "A context is a sequence of demonstrations, and accounts are exact: they read the same numbers as the model. The "
    "ceiling is how much the model's own answer changes with the order of the same demonstrations."
)
CAVEATS = [
    (
        "A share is behaviour",
        "An account that predicts what the model says need not be how it comes to say it. The measures inside the "
        "model stand beside for that reason, and are few.",
    ),
    (
        "Only these accounts",
        "The nearest account is the nearest of those that were tried. Each is one way to put its idea into numbers, "
        "and can fail for its features or its free numbers, not for its idea: a kernel is as good as the likeness that "
        "it is given, a gradient step as its rate and its parameters.",
    ),
    (
        "What cannot be told apart",
        "Accounts that predict the same on these contexts get the same share, whichever of them the model follows; the "
        "picture of distances between accounts shows which these are.",
    ),
    (
        "The ceiling knows order alone",
        "Whatever else makes answers unreliable is held against all accounts alike, so a share of 1 may be out of "
        "reach.",
    ),
]


def method(found: AccountTable) -> list[tuple[str, str]]:
    """How accounts were compared, a paragraph each."""
    distance = "the squared error between means" if found.is_mean else "KL(model || account), in nats"
    return [
        (
            "Accounts",
            "An account says what it would answer from the same demonstrations and query. Its free numbers are fitted "
            f"to the model's answers on one half of the contexts ({found.n_fitted} predictions) and judged on the "
            f"other ({found.n_judged}); no context, and nothing that contexts share as their unit, is in both.",
        ),
        (
            "Share",
            f"With D the mean distance from the model's predictions ({distance}), an account's share is (D of "
            f"“{found.anchor}” minus its own D), divided by (D of “{found.anchor}” minus D of the ceiling).",
        ),
        ("Contexts and ceiling", CONTEXTS.get(found.kind, NUMERIC)),
        (
            "What is named",
            f"Among accounts less than {number(found.margin, 2)} behind the nearest, as far as the paired interval can "
            "tell, the one with the fewest free numbers is taken. It is named where it is no baseline, beats every "
            "baseline, and its share is above a half, each with its whole interval. Intervals are percentiles of a "
            f"bootstrap over {found.n_clusters} units of contexts.",
        ),
    ]
