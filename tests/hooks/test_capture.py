"""Capture against run_with_cache followed by the same reduction in a naive loop."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mechicl.hooks import wrap
from mechicl.hooks.capture import capture_roles
from mechicl.tasks.prompts import Prompt, RoleText, tokenize

PROMPTS = [
    Prompt((0, 5, 6, 7, 8, 9, 10), {"prime": (1, 4), "verb": (2, 3), "end": (5, 7)}),
    Prompt((0, 11, 12, 7), {"verb": (1, 3), "prime": (0, 4), "end": (3, 4)}),
    Prompt((0, 5, 6, 30, 31, 32, 33, 34, 35), {"end": (8, 9), "prime": (1, 8), "verb": (2, 5), "other": (0, 1)}),
]
REDUCE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "max": lambda x: x.amax(0),
    "last": lambda x: x[-1],
}


def cached(model: Any, prompt: Prompt) -> Any:
    tokens = torch.tensor([prompt.tokens])
    with torch.no_grad():
        return model.run_with_cache(tokens, attention_mask=torch.ones_like(tokens))[1]


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma3_text", "native", "hooked"])
@pytest.mark.parametrize("how", ["mean", "sum", "max", "last"])
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_equals_the_full_cache_reduced(tiny_model: Callable[..., Any], kind: str, how: str, budget: int) -> None:
    model = tiny_model(kind).eval()
    # One prompt a batch is the very computation of run_with_cache; a padded batch adds the rounding of other shapes.
    close = {"atol": 1e-6, "rtol": 1e-5} if budget == 1 else {"atol": 1e-5, "rtol": 1e-4}
    streams = ("resid_pre", "resid_post")
    found = capture_roles(
        model, PROMPTS, streams=streams, reduce=how, query_reduce=how, key_reduce="sum", memory_budget=budget
    )
    assert found.roles == ("prime", "verb", "end")
    for row, prompt in enumerate(PROMPTS):
        cache = cached(model, prompt)
        for i, layer in enumerate(found.layers):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0]
            for role in found.roles:
                span = slice(*prompt.roles[role])
                for stream in streams:
                    expected = REDUCE[how](cache[f"blocks.{layer}.hook_{stream}"][0, span])
                    torch.testing.assert_close(found.resid(role, stream)[row, i], expected, **close)
                for key in found.roles:
                    received = pattern[:, :, slice(*prompt.roles[key])].sum(-1)
                    expected = torch.stack([REDUCE[how](head[span]) for head in received])
                    torch.testing.assert_close(found.attention(role, key)[row, i], expected, **close)


@pytest.mark.core
def test_full_keeps_every_position(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    full: Any = {"reduce": "full", "query_reduce": "full", "key_reduce": "full"}
    found = capture_roles(model, PROMPTS, layers=[2], memory_budget=1, **full)
    for row, prompt in enumerate(PROMPTS):
        n, cache = len(prompt), cached(model, prompt)
        torch.testing.assert_close(
            found.residuals["resid_post"][row, 0, :n], cache["blocks.2.hook_resid_post"][0], atol=1e-6, rtol=1e-5
        )
        torch.testing.assert_close(
            found.pattern[row, 0, :, :n, :n], cache["blocks.2.attn.hook_pattern"][0], atol=1e-6, rtol=1e-5
        )
        assert found.residuals["resid_post"][row, 0, n:].isnan().all()


def test_roles_of_a_text_are_found_again(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    text = RoleText.of("A doctor ", ("brought", "verb"), " a ", ("file", "theme"), ".")
    prompt = tokenize(text, model.tokenizer, prepend_bos=True)
    found = capture_roles(model, [prompt], roles=["verb"], reduce="last", patterns=False)
    last = prompt.roles["verb"][1] - 1
    torch.testing.assert_close(
        found.resid("verb")[0, 1], cached(model, prompt)["blocks.1.hook_resid_post"][0, last], atol=1e-6, rtol=1e-5
    )
    assert found.pattern is None
    with pytest.raises(ValueError, match="patterns=True"):
        found.attention("verb", "verb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": ["other"]}, "prompt 0 lacks the role 'other'"),
        ({"streams": ["resid"]}, "unknown activation 'resid'"),
        ({"layers": [7]}, "layers 0 to 2"),
        ({"reduce": "median"}, "unknown reduction 'median'"),
    ],
)
def test_bad_requests_are_refused(tiny_model: Callable[..., Any], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capture_roles(tiny_model("llama"), PROMPTS, **options)


def test_prompts_must_be_there_fit_and_share_a_role(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="no prompts"):
        capture_roles(model, [])
    with pytest.raises(ValueError, match="no role in common"):
        capture_roles(model, [Prompt((1, 2), {"a": (0, 1)}), Prompt((1, 2), {"b": (0, 1)})])
    with pytest.raises(ValueError, match="prompt 0 has 80 tokens"):
        capture_roles(model, [Prompt((5,) * 80, {"a": (0, 1)})])


@pytest.mark.core
def test_an_error_in_the_middle_leaves_only_the_users_hook(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")

    class Stop(Exception):
        pass

    def stop(x: Any, hook: Any) -> None:
        raise Stop

    model.hook_dict["blocks.2.hook_resid_post"].add_hook(stop)
    with pytest.raises(Stop):
        capture_roles(model, PROMPTS)
    assert sum(len(point.fwd_hooks) for point in set(model.hook_dict.values())) == 1


class PeakMemory:
    """The most resident memory, in bytes above that at the start, sampled while the block runs."""

    def __enter__(self) -> "PeakMemory":
        self.start, self.over, self.running = self._now(), 0, True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    def _watch(self) -> None:
        while self.running:
            self.over = max(self.over, self._now() - self.start)
            time.sleep(0.001)

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_near_that_of_a_plain_forward_pass(smollm2: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 40_000, (1, 1024), generator=generator)
    prompt = Prompt(tuple(tokens[0].tolist()), {"start": (0, 9), "middle": (10, 700), "end": (1000, 1024)})
    with torch.no_grad():
        smollm2(tokens[:, :32])
        with PeakMemory() as plain:
            smollm2(tokens)
    with PeakMemory() as captured:
        found = capture_roles(smollm2, [prompt], streams=("resid_pre", "resid_mid", "resid_post"))
    assert found.pattern is not None and found.pattern.shape == (1, 30, 9, 3, 3)
    assert captured.over < 1.3 * plain.over
    assert wrap(smollm2).has_hooks() is False
