"""What heads look at, with words of several tokens: equal to the model's own pattern."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.functionals import functional_of
from mechicl.analyses.heads.attention import attention_table
from mechicl.analyses.heads.effects import Rows, Sweeper
from mechicl.analyses.heads.question import Question
from mechicl.analyses.priming_prompts import priming_items
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.datives import dative_corpus

HEADS = [(0, 1), (1, 3)]


@pytest.fixture(scope="module")
def parts(tiny_model: Callable[..., Any]) -> tuple[Sweeper, Question, Rows]:
    corpus = dative_corpus(verbs=["give", "draw", "feed", "buy"], targets_per_verb=2, seed=4)
    question = Question(functional_of("priming", corpus.forms, neutral=True), "nats", pd.Series(), 0.95, 100, 100, 0)
    model = wrap(tiny_model("gpt2", n_ctx=128))
    sweeper = Sweeper(model, corpus, ("target",), "interchange", True, 1 << 30, False, None)
    return sweeper, question, Rows.of(corpus.to_frame(), np.array([0, 5, 11, 20]))


def test_shares_are_read_off_the_pattern_at_the_last_token_of_the_query(parts, tiny_tokenizer: Any) -> None:
    sweeper, question, rows = parts
    table = attention_table(sweeper, question, rows, HEADS).set_index(["name", "context", "query", "key"])["share"]
    assert not table.index.duplicated().any()
    for context in ("PD", "DO"):
        found: dict[tuple[str, str, str], list[float]] = {}
        for item in priming_items(sweeper.corpus, tiny_tokenizer, rows.numbers, context):
            prompt = item.prompts[0]
            _, cache = sweeper.wrapped.model.run_with_cache(torch.tensor([prompt.tokens]))
            for layer, head in HEADS:
                pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, head]
                for query in ("last", "target.verb", "prime.verb"):
                    for key in ("bos", "prime.subject", "prime.verb", "prime.theme", "target.subject", "target.verb"):
                        start, stop = prompt.roles[key]
                        share = float(pattern[prompt.roles[query][1] - 1, start:stop].sum())
                        found.setdefault((f"L{layer}H{head}", query, key), []).append(share)
        for (name, query, key), shares in found.items():
            assert table[name, context, query, key] == pytest.approx(np.mean(shares), abs=1e-5)
    assert set(table.index.get_level_values("name")) == {"L0H1", "L1H3"} and table.between(0, 1.00001).all()


def test_no_head_no_row(parts) -> None:
    found = attention_table(*parts, [])
    assert found.empty and list(found.columns) == ["name", "context", "query", "key", "share"]
