"""How many verbs a test needs before it can say anything."""

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.functionals import functional_of
from mechicl.analyses.heads.effects import Rows
from mechicl.analyses.heads.question import Question


@pytest.mark.parametrize(
    ("effect", "level", "fewest"), [("priming", 0.95, 6), ("ife", 0.95, 4), ("priming", 0.99, 8), ("ife", 0.99, 5)]
)
def test_with_fewer_verbs_a_perfect_head_is_not_significant(effect, level, fewest) -> None:
    for n, significant in ((fewest, True), (fewest - 1, False)):
        x = np.array([0.1, 0.3, 0.4, 0.45, 0.62, 0.71, 0.9, 0.95])[:n]
        verbs = [f"verb{i}" for i in range(n)]
        question = Question(
            functional_of(effect, ("PD", "DO"), neutral=True), "nats", pd.Series(x, index=verbs), level, 100, 100_000, 0
        )
        assert question.fewest_verbs == fewest
        rows = Rows(np.arange(2 * n), np.repeat(verbs, 2), np.array(["one", "other"] * n))
        perfect = np.repeat(x, 2)[None] if effect == "ife" else np.ones((1, 2 * n))
        assert (question.tests(perfect, rows).p_fwe[0] <= 1 - level) == significant
