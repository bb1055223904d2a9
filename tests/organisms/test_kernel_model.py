"""The planted kernel regression against its closed forms, written here a second time as plain loops."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.kernel_circuit import ROLES
from mechicl.organisms.kernel_model import planted_kernel
from mechicl.tasks.fewshot import fewshot_prompts
from mechicl.tasks.prompts import Prompt

ATOL = {"float32": 1e-6, "float64": 1e-12}
DEMOS = 7


@cache
def planted(**options):
    return planted_kernel(**{"n_items": 30, "dim": 3, "n_ctx": 24, "seed": 2, **options})


def prompts_of(model, n_demos=DEMOS, n=12, **options):
    return fewshot_prompts(
        model.task, n_demos, n, tokenizer=model.tokenizer, seed=3, n_ctx=model.model.cfg.n_ctx, **options
    )


def run(model, prompts):
    tokens = torch.tensor([prompt.prompt.tokens for prompt in prompts])
    return model.model.run_with_cache(tokens)


def loop_weights(model, role, prompt):
    """The attention to each demonstration of one prompt, a demonstration at a time."""
    c, n, scores = model.circuit, len(prompt.demos), []
    query = c.vectors[prompt.query]
    for i, row in enumerate(prompt.demos):
        x = c.vectors[row]
        scores.append({
            "rbf": -sum((query - x) ** 2) / (2 * c.bandwidth**2),
            "dot": sum(query * x) / c.temperature,
            "cosine": sum(query * x) / math.sqrt(sum(query**2) * sum(x**2)) / c.temperature,
            "recency": (n - 1 - i) * math.log(c.decay),
            "uniform": 0.0,
            "label": c.bias * (prompt.demo_labels[i] == "red"),
        }[role])  # fmt: skip
    return np.exp(scores) / np.exp(scores).sum()


def loop_votes(model, prompt, roles):
    """Logit of each label of one prompt."""
    return np.array([
        sum(
            model.circuit.gain * w
            for role in roles
            for w, shown in zip(loop_weights(model, role, prompt), prompt.demo_labels, strict=True)
            if shown == label
        )
        for label in prompt.labels
    ])  # fmt: skip


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("labels", ["true", "shuffled"])
def test_heads_attend_to_labels_by_their_kernels_and_to_nothing_else(dtype, labels):
    model = planted(dtype=dtype)
    prompts = prompts_of(model, labels=labels)
    _, cache_ = run(model, prompts)
    pattern = cache_["blocks.1.attn.hook_pattern"][:, :, -1].double().numpy(force=True)
    at = [[prompt.prompt.roles[f"demo[{i}].label"][0] for i in range(DEMOS)] for prompt in prompts]
    found = model.attention(prompts)
    assert set(found) == set(model.heads) == set(ROLES)
    for role, (_, head) in model.heads.items():
        expected = np.stack([loop_weights(model, role, prompt) for prompt in prompts])
        np.testing.assert_allclose(found[role], expected, atol=1e-13)
        read = np.take_along_axis(pattern[:, head], np.array(at), axis=1)
        np.testing.assert_allclose(read, expected, atol=ATOL[dtype])
        np.put_along_axis(pattern[:, head], np.array(at), 0.0, axis=1)
    assert pattern.max() < 1e-15


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, "float32"), ({}, "float64"), ({"writes": ("rbf", "recency"), "n_labels": 3, "rule": "linear"}, "float64")],
)
def test_label_probabilities_are_those_of_the_kernel_regression(options, dtype):
    model = planted(dtype=dtype, **options)
    prompts = prompts_of(model)
    tokens = [prompt.label_tokens for prompt in prompts]
    found = np.array(label_log_probs(wrap(model.model), [prompt.prompt for prompt in prompts], tokens))
    np.testing.assert_allclose(found, model.label_log_probs(prompts), atol=5 * ATOL[dtype])
    for row, prompt in zip(found, prompts, strict=True):
        votes = loop_votes(model, prompt, model.writes)
        np.testing.assert_allclose(np.exp(row), np.exp(votes) / np.exp(votes).sum(), atol=1e-6)
    assert len({prompt.answer for prompt in prompts}) == len(model.task.labels)


def test_only_heads_that_write_matter():
    model, prompts = planted(), prompts_of(planted())
    _, cache_ = run(model, prompts)
    z, out = cache_["blocks.1.attn.hook_z"], wrap(model.model).W_O(1)
    written = torch.einsum("bphd,hdm->bphm", z, out).abs().amax((0, 1, 3))
    assert written[0] > 1
    assert not written[1:].any()
    assert cache_["blocks.0.hook_attn_out"][:, 1::2].abs().max() < 1e-20  # nothing is written at item tokens
    votes = {role: planted(writes=(role,)).label_log_probs(prompts) for role in ROLES}
    assert min(abs(votes["rbf"] - votes[role]).max() for role in ROLES[1:]) > 0.05
    assert planted(writes=()).label_log_probs(prompts) == pytest.approx(math.log(0.5), abs=1e-11)


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("point", ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"])
def test_the_residual_stream_has_the_kernels_of_the_items(point, dtype):
    """Log attention is linear in -d^2/2 over the residual stream, with the slope 1/h^2."""
    model = planted(dtype=dtype)
    prompts = prompts_of(model)
    _, cache_ = run(model, prompts)
    residual = cache_[point].double().numpy(force=True)
    query, x = residual[:, -1], residual[:, 1:-1:2]
    vectors = model.vectors[[[*prompt.demos, prompt.query] for prompt in prompts]]
    own, others = vectors[:, -1], vectors[:, :-1]
    square = ((query[:, None] - x) ** 2).sum(-1) - ((own[:, None] - others) ** 2).sum(-1)
    product = np.einsum("id,ind->in", query, x) - np.einsum("id,ind->in", own, others)
    assert np.ptp(square, axis=1).max() < ATOL[dtype] + 1e-10
    assert abs(product).max() < ATOL[dtype] + 1e-10
    kernel = -((query[:, None] - x) ** 2).sum(-1) / 2
    log = np.log(cache_["blocks.1.attn.hook_pattern"][:, 0, -1, 2::2].double().numpy(force=True))
    kernel, log = (part - part.mean(1, keepdims=True) for part in (kernel, log))
    slope = (kernel * log).sum() / (kernel**2).sum()
    assert 1 / math.sqrt(slope) == pytest.approx(model.bandwidth, rel=10 * ATOL[dtype] + 1e-9)
    assert ((log - slope * kernel) ** 2).sum() / (log**2).sum() < 1e-9


def test_an_infinite_bandwidth_is_a_uniform_head():
    wide, prompts = planted(bandwidth=math.inf), prompts_of(planted())
    _, cache_ = run(wide, prompts)
    pattern = cache_["blocks.1.attn.hook_pattern"][:, 0, -1, 2::2]
    assert pattern.numpy(force=True) == pytest.approx(1 / DEMOS, abs=1e-7)
    found = wide.attention(prompts)
    assert np.array_equal(found["rbf"], found["uniform"])
    assert np.ptp(found["recency"], axis=1).min() > 0.1


def test_a_query_alone_is_answered_by_chance_and_demonstrations_up_to_the_window_fit():
    model = planted()
    prompts = prompts_of(model, n_demos=11)
    alone = label_log_probs(wrap(model.model), [p.zero_shot for p in prompts], [p.label_tokens for p in prompts])
    assert np.array(alone) == pytest.approx(math.log(0.5), abs=1e-6)
    with pytest.raises(ValueError, match="11 of them fit"):
        prompts_of(model, n_demos=12)


def test_items_are_drawn_by_the_rule_and_the_seed():
    for rule in ("centres", "linear"):
        model, other = planted(rule=rule, n_labels=3), planted(rule=rule, n_labels=3, seed=5)
        assert set(model.task.labels) == {"red", "green", "blue"}
        assert len(set(model.task.frame["text"])) == 30
        assert not np.array_equal(model.vectors, other.vectors)
        assert 0.5 < np.linalg.norm(model.vectors, axis=-1).mean() < 2
    state = torch.random.get_rng_state()
    again = planted_kernel(n_items=30, dim=3, n_ctx=24, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(again.vectors, planted().vectors)
    assert "h=0.6" in repr(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_items": 3}, "got n_items=3; expected 4 or more"),
        ({"n_labels": 4}, "got n_labels=4; expected 2 to 3"),
        ({"rule": "quadratic"}, "expected one of centres, linear"),
        ({"bandwidth": 0.0}, "got bandwidth=0.0; expected a number above 0"),
        ({"temperature": math.nan}, "got temperature=nan"),
        ({"decay": 1.5}, "got decay=1.5"),
        ({"gain": math.inf}, "gain=inf; expected finite numbers"),
        ({"heads": ("rbf", "rbf")}, "each once"),
        ({"heads": ("linear",)}, "expected some of rbf, recency"),
        ({"heads": ("rbf",), "writes": ("recency",)}, "expected some of the heads rbf"),
        ({"dtype": "float16"}, "expected 'float32' or 'float64'"),
    ],
)
def test_models_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        planted_kernel(**options)


def test_prompts_that_the_closed_form_cannot_read_are_refused():
    model = planted()
    prompts = prompts_of(model)
    with pytest.raises(ValueError, match="equally many demonstrations"):
        model.attention([*prompts, *prompts_of(model, n_demos=3)])
    with pytest.raises(ValueError, match="equally many demonstrations"):
        model.attention(prompts_of(model, prepend_bos=False))
    with pytest.raises(ValueError, match="got no prompts"):
        model.label_log_probs([])
    strange = replace(prompts[0], prompt=Prompt((0, 2, *prompts[0].prompt.tokens[2:]), {}))
    with pytest.raises(ValueError, match="other words than this model's"):
        model.attention([strange])
