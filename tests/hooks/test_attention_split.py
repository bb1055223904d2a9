"""Attention by demonstration: equal to loops over queries, keys and values, and to a run without the context."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mechicl
from mechicl.hooks.attention_split import AttentionParts, attention_parts
from mechicl.hooks.knockout import knock_out_attention
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

DEMOS = ["demo[0]", "demo[1]"]
EXACT = {"rtol": 0, "atol": 1e-12}


def prompt(n: int, seed: int, ending: tuple[int, ...] = ()) -> Prompt:
    """BOS, two demonstrations with a token between, a query of two tokens, and what follows."""
    tokens = np.random.default_rng(seed).integers(5, 60, size=n).tolist()
    roles = {"bos": (0, 1), "demo[0]": (1, 3), "demo[1]": (4, n - 2), "query": (n - 2, n), "last": (n - 1, n)}
    return Prompt((0, *tokens[1:], *ending), roles | ({"scored": (n, n + len(ending))} if ending else {}))


PROMPTS = [prompt(9, 0, (7,)), prompt(8, 1), prompt(9, 0), prompt(12, 2)]


@pytest.fixture(scope="module")
def exact(tiny_folder: Callable[..., Any]) -> Callable[[str], Any]:
    """Tiny models in float64."""
    return lambda kind: mechicl.load(tiny_folder(kind), device="cpu", dtype="float64")


def cached(model: Any, tokens: tuple[int, ...], name: str, layer: int) -> np.ndarray:
    wrapped, found = wrap(model), []
    with wrapped.evaluating(), wrapped.hooked([(name, layer, lambda x: found.append(x[0].clone()))]):
        model(torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long))
    x = found[0].numpy()
    return x if name == "pattern" else x.reshape(len(tokens), -1, 8)


def by_loops(model: Any, one: Prompt, layer: int, head: int) -> dict[str, np.ndarray]:
    """The same from queries, keys and values alone, a number at a time; for absolute positions."""
    tokens = one.tokens[: one.roles["query"][1]]
    q, k, v = (cached(model, tokens, name, layer)[:, head] for name in "qkv")
    score = [float(q[-1] @ k[j]) / np.sqrt(8) for j in range(len(tokens))]
    weight = [np.exp(s - max(score)) for s in score]
    a = [w / sum(weight) for w in weight]
    spans = [range(*one.roles[demo]) for demo in DEMOS]
    outside = [j for j in range(len(tokens)) if not any(j in span for span in spans)]
    without = sum(weight[j] * v[j] for j in outside) / sum(weight[j] for j in outside)  # softmax over the rest
    return {
        "z": sum(a[j] * v[j] for j in range(len(tokens))),
        "without": without,
        "mass": np.array([sum(a[j] for j in span) for span in spans]),
        "contributions": np.array([sum(a[j] * (v[j] - without) for j in span) for span in spans]),
    }


@pytest.mark.core
def test_every_part_is_that_of_loops_over_q_k_and_v(exact: Callable[[str], Any]) -> None:
    model = exact("gpt2")
    parts = attention_parts(model, PROMPTS, contexts={"demos": DEMOS}, query="query").parts["demos"]
    for i, one in enumerate(PROMPTS):
        for layer in range(2):
            for head in range(4):
                own, at = by_loops(model, one, layer, head), (i, layer, head)
                np.testing.assert_allclose(parts.mass[at], own["mass"], **EXACT)
                np.testing.assert_allclose(parts.without_context[at], own["without"], **EXACT)
                np.testing.assert_allclose(parts.contributions[at], own["contributions"], **EXACT)
                np.testing.assert_allclose(parts.update[at], own["z"] - own["without"], **EXACT)
                dual = parts.alpha[at] * (parts.context_mean[at] - parts.rest_mean[at])
                np.testing.assert_allclose(parts.update[at], dual, **EXACT)


CORE = [pytest.param(kind, marks=pytest.mark.core) for kind in ("llama", "gpt_neox", "gemma3_text", "hooked")]


# A native model of TransformerLens 3 shows no pattern before z, and is refused with the reason.
@pytest.mark.parametrize("kind", [*CORE, "qwen2", "native"])
def test_the_parts_make_z_in_every_architecture(kind: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind).double()  # grouped queries, windows, rotation, 3.x
    captured = attention_parts(model, PROMPTS, contexts={"demos": DEMOS}, query="query", streams=["resid_post"])
    parts, one = captured.parts["demos"], PROMPTS[3]
    for layer in range(parts.mass.shape[1]):
        z, v = (cached(model, one.tokens, name, layer) for name in ("z", "v"))
        pattern = cached(model, one.tokens, "pattern", layer)[:, -1]
        np.testing.assert_allclose(parts.update[3, layer] + parts.without_context[3, layer], z[-1], **EXACT)
        for head in range(4):
            own = v[:, head // (4 // v.shape[1])]  # the key-value head that this head reads
            span = slice(*one.roles["demo[1]"])
            np.testing.assert_allclose(parts.mass[3, layer, head, 1], pattern[head, span].sum(), **EXACT)
            np.testing.assert_allclose(parts.output[3, layer, head, 1], pattern[head, span] @ own[span], **EXACT)
        found: list[torch.Tensor] = []
        wrapped = wrap(model)
        with wrapped.evaluating(), wrapped.hooked([("resid_post", layer, lambda x, f=found: f.append(x))]):
            model(torch.tensor([one.tokens]))
        np.testing.assert_allclose(captured.residuals["resid_post"][3, layer], found[0][0, -1].numpy(), **EXACT)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_knocking_the_context_out_is_z_without_context(kind: str, exact: Callable[[str], Any]) -> None:
    model, n = exact(kind), 9
    wrapped = wrap(model)
    item = PatchItem((prompt(n, 0, (7,)), prompt(n, 0, (8,))))
    parts = attention_parts(model, item.prompts[:1], contexts={"demos": DEMOS}).parts["demos"]
    heads = [(layer, head) for layer in range(wrapped.n_layers) for head in range(4)]
    cut = knock_out_attention(model, [item], edges=[("last", demo) for demo in DEMOS], progress=False)
    for number, (layer, head) in enumerate(heads):
        new = torch.from_numpy(parts.without_context[0, layer, head])

        def replace(z: torch.Tensor, new: torch.Tensor = new, head: int = head) -> torch.Tensor:
            apart = z.reshape(*z.shape[:2], 4, 8).clone()
            apart[:, n - 1, head] = new
            return apart.view_as(z)

        tokens = torch.tensor([item.prompts[0].tokens])
        with wrapped.evaluating(), wrapped.hooked([("z", layer, replace)]):
            logits = model(tokens, return_type="logits", attention_mask=torch.ones_like(tokens))[0, n - 1]
        np.testing.assert_allclose(cut.values[number, 0], float(logits[7] - logits[8]), rtol=0, atol=1e-11)
        assert abs(cut.values[number, 0] - cut.clean[0]) > 1e-4  # and that is something else than z


def test_shares_sum_to_one_and_may_be_negative(exact: Callable[[str], Any]) -> None:
    parts = attention_parts(exact("gpt2"), PROMPTS, contexts={"demos": DEMOS}).parts["demos"]
    np.testing.assert_allclose(parts.shares.sum(-1), 1, rtol=0, atol=1e-9)
    assert (parts.shares < 0).any()
    one_way = AttentionParts(
        np.full((1, 1, 1, 2), 0.5), np.array([[[[[3.0, 0.0], [-1.0, 0.0]]]]]), np.zeros((1, 1, 1)),
        np.zeros((1, 1, 1, 2)),
    )  # fmt: skip
    np.testing.assert_allclose(one_way.shares[0, 0, 0], [1.5, -0.5])  # by hand: 3 * 2 / 4 and -1 * 2 / 4
    np.testing.assert_array_equal(one_way.rest_mean, 0)  # nothing else is attended to
    still = AttentionParts(one_way.mass, 0 * one_way.output, one_way.rest_mass, one_way.rest_output)
    assert np.isnan(still.shares).all()


def test_masks_and_roles_agree_and_contexts_share_a_pass(exact: Callable[[str], Any]) -> None:
    model, masks = exact("llama"), []
    for one in PROMPTS:
        mask = np.zeros((2, len(one)), dtype=bool)
        mask[0, 1:3] = mask[1, slice(*one.roles["demo[1]"])] = True
        masks.append(mask)
    bos = [np.arange(len(one)) == 0 for one in PROMPTS]
    captured = attention_parts(model, PROMPTS, contexts={"roles": DEMOS, "masks": masks, "bos": bos, "b": ["bos"]})
    for field in ("mass", "output", "rest_mass", "rest_output"):
        np.testing.assert_array_equal(*(getattr(captured.parts[name], field) for name in ("roles", "masks")))
        np.testing.assert_array_equal(*(getattr(captured.parts[name], field) for name in ("bos", "b")))
    z = [parts.output.sum(-2) + parts.rest_output for parts in captured.parts.values()]
    np.testing.assert_allclose(z[0], z[2], **EXACT)
    alone = attention_parts(model, PROMPTS[1:2], contexts={"demos": DEMOS}).parts["demos"]
    np.testing.assert_allclose(alone.update[0], captured.parts["roles"].update[1], **EXACT)  # batches change nothing
    small = attention_parts(model, PROMPTS, contexts={"demos": DEMOS}, memory_budget=1).parts["demos"]
    np.testing.assert_allclose(small.update, captured.parts["roles"].update, **EXACT)


def test_the_model_is_left_as_it_was(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    model.train()
    before = wrap(model).checksum()
    parts = attention_parts(model, PROMPTS, contexts={"demos": DEMOS}).parts["demos"]
    assert parts.mass.dtype == np.float32
    with pytest.raises(RuntimeError, match="on purpose"), wrap(model).hooked([("z", 1, _fail)]):
        attention_parts(model, PROMPTS, contexts={"demos": DEMOS})
    assert wrap(model).checksum() == before and model.training and not wrap(model).has_hooks()


def _fail(_: torch.Tensor) -> None:
    raise RuntimeError("on purpose")


def test_bad_contexts_are_refused_before_any_pass(tiny_model: Callable[..., Any]) -> None:
    model, one = tiny_model("gpt2"), PROMPTS[0]
    width = len(one)
    last = np.arange(width) == 8
    cases = [
        ([], "is empty: it has no demonstrations"),
        ([np.zeros(width, dtype=bool)], "is empty, or one of its demonstrations is"),
        ([np.ones(width + 3, dtype=bool)], f"over {width + 3} tokens; expected booleans over the text's {width}"),
        ([np.ones(width)], "a mask of float64"),
        ([last], "reaches the query"),
        ([np.arange(width) == 9], "or beyond it"),
        (["query"], "reaches the query"),
        (["demo[9]"], "has no role 'demo"),
        ([np.ones((2, width), dtype=bool) & ~last & (np.arange(width) < 8)], "overlap"),
        ([last, last], "2 masks for 1 prompts"),
    ]
    for demos, message in cases:
        with pytest.raises(ValueError, match=message):
            attention_parts(model, [one], contexts={"demos": demos})
    unequal = [np.eye(2, len(PROMPTS[0]), dtype=bool), np.eye(1, len(PROMPTS[1]), dtype=bool)]
    with pytest.raises(ValueError, match="give all as many"):
        attention_parts(model, PROMPTS[:2], contexts={"demos": unequal})
    with pytest.raises(ValueError, match="got no prompts"):
        attention_parts(model, [], contexts={"demos": DEMOS})
    with pytest.raises(ValueError, match="lacks the role 'nothing'"):
        attention_parts(model, [one], contexts={"demos": DEMOS}, query="nothing")
    with pytest.raises(ValueError, match="unknown stream"):
        attention_parts(model, [one], contexts={"demos": DEMOS}, streams=["z"])
    with pytest.raises(ValueError, match="context window holds 64"):
        attention_parts(model, [prompt(70, 0)], contexts={"demos": DEMOS})


def test_a_head_that_is_patched_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    with wrap(model).hooked([("z", 0, lambda z: z * 2)]), pytest.raises(ValueError, match="or a hook of yours"):
        attention_parts(model, PROMPTS, contexts={"demos": DEMOS})
