"""One pass over few-shot prompts: equal to plain runs with a cache, one at a time, in numpy; stores; refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from mechicl.hooks.demos.attention import DemoAttention
from mechicl.hooks.demos.readings import DemoReadings, kernel_name, read_demonstrations
from mechicl.hooks.demos.runs import References
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.prompts import Prompt

ASK, LINE = 70, 71
pytestmark = pytest.mark.core
FIELDS = ("elsewhere", "kernels", "salience", "label_log_probs")


def made(n: int = 5, n_demos: int = 3, labels: tuple[tuple[int, ...], ...] = ((90,), (91,)), seed: int = 0,
         queries: list[int] | None = None) -> list[FewShotPrompt]:  # fmt: skip
    """Prompts of random tokens; texts differ in length; a line break ends each demonstration."""
    rng = np.random.default_rng(seed)
    text = lambda: tuple(int(t) for t in rng.integers(5, 60, size=rng.integers(1, 4)))  # noqa: E731
    prompts = []
    for number in range(n):
        tokens, roles, examples, shown = [0], {}, [], rng.integers(len(labels), size=n_demos)
        for i in range(n_demos):
            own, label, start = text(), labels[shown[i]], len(tokens)
            tokens += [*own, ASK, *label, LINE]
            asked, stop = start + len(own) + 1, len(tokens) - 1
            roles |= {
                f"demo[{i}]": (start, stop),
                f"demo[{i}].text": (start, asked - 1),
                f"demo[{i}].label": (asked, stop),
            }
            roles_alone = {"text": (1, 1 + len(own)), "label": (2 + len(own), 2 + len(own) + len(label))}
            examples.append(Prompt((0, *own, ASK, *label), roles_alone))
        own, start = text(), len(tokens)
        tokens += [*own, ASK]
        n_all, n_own = len(tokens), len(own) + 2
        roles |= {"query": (start, n_all), "query.text": (start, n_all - 1), "last": (n_all - 1, n_all)}
        alone = {"query": (1, n_own), "query.text": (1, n_own - 1), "last": (n_own - 1, n_own)}
        names = tuple("abc"[: len(labels)])
        prompts.append(FewShotPrompt(
            task="made", prompt=Prompt(tuple(tokens), roles), zero_shot=Prompt((0, *own, ASK), alone),
            examples=tuple(examples), labels=names, label_tokens=labels, answer=0,
            demo_labels=tuple(names[i] for i in shown), demos=tuple(range(n_demos)),
            query=number if queries is None else queries[number],
        ))  # fmt: skip
    return prompts


def read(model: Any, prompts: list[FewShotPrompt], **options: Any) -> DemoReadings:
    return read_demonstrations(model, prompts, progress=False, **options)


def fields(found: DemoReadings) -> dict[str, np.ndarray]:
    return {name: getattr(found, name) for name in FIELDS}


def cached(model: Any, tokens: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a text run alone: patterns [layer head query key], states [layer_and_embedding pos d_model], log-probs."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([tokens]))
    n = model.cfg.n_layers
    patterns = np.stack([cache[f"blocks.{layer}.attn.hook_pattern"][0].double() for layer in range(n)])
    states = [cache[f"blocks.{layer}.hook_resid_pre"][0] for layer in range(n)] + [
        cache[f"blocks.{n - 1}.hook_resid_post"][0]
    ]
    return patterns, np.stack([x.double() for x in states]), log_softmax(logits[0, -1].double().numpy())


def naive_kernels(x: np.ndarray, query: np.ndarray) -> dict[str, float]:
    dot = float(x @ query)
    return {
        "rbf": -float(((x - query) ** 2).sum()) / 2,
        "cosine": dot / float(np.linalg.norm(x) * np.linalg.norm(query)),
        "dot": dot / len(x) ** 0.5,
    }


class Naive:
    """What a reading holds, from cached runs of one text at a time."""

    def __init__(self, model: Any, prompts: list[FewShotPrompt]) -> None:
        self.prompts = prompts
        self.runs = [cached(model, one.prompt.tokens) for one in prompts]
        self.queries = [cached(model, one.zero_shot.tokens) for one in prompts]
        self.demos = [
            [cached(model, example.tokens[: example.roles["label"][0]]) for example in one.examples] for one in prompts
        ]

    def demo(self, number: int, i: int, place: str, layer: int) -> np.ndarray:
        """The state of a demonstration."""
        roles, states = self.prompts[number].prompt.roles, self.runs[number][1][layer]
        if place == "ask":
            return states[roles[f"demo[{i}].label"][0] - 1]
        return (
            states[slice(*roles[f"demo[{i}].text"])].mean(0) if place == "text" else self.demos[number][i][1][layer, -1]
        )

    def query(self, number: int, place: str, layer: int) -> np.ndarray:
        """The state of a prompt's query."""
        states = self.runs[number][1][layer]
        if place == "text":
            return states[slice(*self.prompts[number].prompt.roles["query.text"])].mean(0)
        return states[-1] if place == "ask" else self.queries[number][1][layer, -1]

    def kernel(self, number: int, i: int, of: int, kind: str, place: str, layer: int) -> float:
        """The kernel of a prompt's demonstration and the query of prompt `of`."""
        if kind == "prediction":
            return float(logsumexp(self.demos[number][i][2] + self.queries[of][2]))
        return naive_kernels(self.demo(number, i, place, layer), self.query(of, place, layer))[kind]


@pytest.mark.parametrize(
    ("kind", "double", "atol"),
    [("gpt2", True, 1e-9), ("llama", False, 2e-5), ("gpt_neox", False, 2e-5), ("gemma3_text", False, 2e-5),
     ("native", True, 1e-9)],
)  # fmt: skip
def test_everything_is_what_plain_runs_cache(
    kind: str, double: bool, atol: float, known_model: Callable[..., Any]
) -> None:
    model, prompts = known_model(kind, double), made(queries=[3, 8, 3, 9, 1])
    found, naive = read(model, prompts, n_references=3), Naive(model, prompts)
    references = [0, 1, 3]  # the first prompts with different queries
    expected = {name: np.zeros_like(values) for name, values in {**found.attention, **fields(found)}.items()}
    for number, one in enumerate(prompts):
        pattern, roles = naive.runs[number][0][:, :, -1], one.prompt.roles
        others = [of for of in references if prompts[of].query != one.query]
        for i in range(3):
            own, label = (pattern[..., slice(*roles[f"demo[{i}]{part}"])] for part in ("", ".label"))
            for name, values in (("sum", own.sum(-1)), ("max", own.max(-1)), ("label", label.sum(-1))):
                expected[name][number, ..., i] = values
            for k, kernel in enumerate(found.kernel_table.itertuples(index=False)):
                expected["kernels"][number, k, i] = naive.kernel(number, i, number, *kernel)
                salience = [naive.kernel(number, i, of, *kernel) for of in others]
                expected["salience"][number, k, i] = np.mean(salience)
        lines = [roles[f"demo[{i}]"][1] for i in range(3)]
        elsewhere = [pattern[..., 0], pattern[..., lines].sum(-1), pattern[..., slice(*roles["query"])].sum(-1)]
        expected["elsewhere"][number] = np.stack(elsewhere, -1)
        expected["label_log_probs"][number] = [naive.runs[number][2][label[0]] for label in one.label_tokens]
    for name, values in {**found.attention, **fields(found)}.items():
        np.testing.assert_allclose(values, expected[name], rtol=10 * atol, atol=atol, err_msg=name)
    np.testing.assert_allclose(found.attention["sum"].sum(-1) + found.elsewhere.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.predicted, found.label_log_probs.argmax(-1))


def test_kernels_are_named_in_their_order(known_model: Callable[..., Any]) -> None:
    found = read(known_model("llama"), made(3), places=["alone", "ask"])  # kept in one order, whatever is asked
    assert found.kernel_names[:4] == ["rbf ask 0", "cosine ask 0", "dot ask 0", "rbf ask 1"]
    assert found.kernel_names[-2:] == ["dot alone 3", "prediction"] and kernel_name("dot", "text", 4) == "dot text 4"
    assert len(found.kernel_names) == found.kernels.shape[1] == 2 * 4 * 3 + 1
    whole = read(known_model("llama"), made(3))
    at = [whole.kernel_names.index(name) for name in found.kernel_names]
    np.testing.assert_allclose(found.kernels, whole.kernels[:, at], atol=1e-5)
    np.testing.assert_allclose(found.salience, whole.salience[:, at], atol=1e-5)
    none = read(known_model("llama"), made(3, queries=[5, 5, 5]), places=())  # attention alone needs no second query
    assert none.kernels.shape == (3, 0, 3) and none.kernel_names == []
    np.testing.assert_allclose(none.attention["max"], whole.attention["max"], atol=1e-6)


@pytest.mark.parametrize("labels", [((90, 5), (90, 6), (91,)), ((92,), (93,), (94,))])
def test_labels_have_the_log_probability_of_all_their_tokens(labels: Any, known_model: Callable[..., Any]) -> None:
    model, prompts = known_model("gpt2", True), made(4, labels=labels)
    found = read(model, prompts, places=()).label_log_probs
    expected = label_log_probs(wrap(model), [one.prompt for one in prompts], [one.label_tokens for one in prompts])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    for number, one in enumerate(prompts):
        for i, label in enumerate(labels):
            steps = [cached(model, (*one.prompt.tokens, *label[:k]))[2][label[k]] for k in range(len(label))]
            assert found[number, i] == pytest.approx(sum(steps), abs=1e-9)


@pytest.mark.parametrize("labels", [((90,), (91,)), ((90, 5), (91, 7))])
def test_batches_do_not_matter(labels: Any, known_model: Callable[..., Any]) -> None:
    model, prompts = known_model("gpt2", True), made(6, labels=labels)
    whole = read(model, prompts)
    for budget in (1, 200_000):
        parts = read(model, prompts, memory_budget=budget)
        for how, attention in whole.attention.items():
            np.testing.assert_allclose(parts.attention[how], attention, atol=1e-10)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-8)
    order = [4, 0, 5, 2, 1, 3]  # the same first queries for reference, if all serve
    moved = read(model, [prompts[i] for i in order])
    np.testing.assert_allclose(moved.salience, whole.salience[order], atol=1e-8)


def test_a_model_in_half_precision_is_read(tiny_model: Callable[..., Any]) -> None:
    model, prompts = tiny_model("llama"), made(4)
    exact = read(model, prompts)
    rough = read(model.to(torch.bfloat16), prompts)
    for name in FIELDS:
        values = getattr(rough, name)
        assert values.dtype == np.float64 and np.isfinite(values).all()
        spread = getattr(exact, name).std()
        assert np.sqrt(((values - getattr(exact, name)) ** 2).mean()) < 0.1 * spread
    np.testing.assert_allclose(rough.attention["sum"], exact.attention["sum"], atol=0.1)


class Passes:
    """Counts the rows of forward passes."""

    def __init__(self, model: Any) -> None:
        self.rows: list[int] = []
        self.stop: int | None = None
        self.handle = model.original_model.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = given[0] if given else named["input_ids"]
        self.rows.append(len(tokens))
        if self.stop is not None and len(self.rows) > self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def passes(known_model: Callable[..., Any]) -> Any:
    """A counter on the tiny gpt2 in double precision."""
    counter = Passes(known_model("gpt2", True))
    yield counter
    counter.handle.remove()


def test_an_interrupted_reading_goes_on(tmp_path: Path, passes: Passes, known_model: Callable[..., Any]) -> None:
    model, prompts = known_model("gpt2", True), made(6)
    options = {"memory_budget": 1, "places": ("ask", "text"), "n_references": 2}  # a prompt a pass, and two references
    plain = read(model, prompts, **options)
    assert passes.rows == [1] * 8
    passes.rows, passes.stop = [], 5
    with pytest.raises(KeyboardInterrupt):
        read(model, prompts, store=tmp_path, **options)
    passes.rows, passes.stop = [], None
    resumed = read(model, prompts, store=tmp_path, **options)
    assert len(passes.rows) == 2 + 6 - 3  # references again, and those that were not finished
    passes.rows = []
    again = read(model, prompts, store=tmp_path, **options)
    assert passes.rows == []
    for found in (resumed, again):
        for how, attention in plain.attention.items():
            np.testing.assert_allclose(found.attention[how], attention, atol=1e-12)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(found, name), getattr(plain, name), atol=1e-10)
    read(model, prompts, store=tmp_path, **{**options, "n_references": 3})  # salience is another
    assert len(passes.rows) == 3 + 6
    passes.rows = []
    read(model, prompts, store=tmp_path, **{**options, "places": ("ask",)})
    assert len(passes.rows) == 2 + 6
    passes.rows = []
    relabelled = [replace(one, label_tokens=((95,), (96,))) for one in prompts]
    other = read(model, relabelled, store=tmp_path, **options)
    assert len(passes.rows) == 2 + 6 and (other.label_log_probs != plain.label_log_probs).all()


def test_a_folder_of_another_model_is_refused(tmp_path: Path, passes: Passes, known_model: Callable[..., Any]) -> None:
    read(known_model("llama"), made(3), store=tmp_path, places=())
    passes.rows = []
    with pytest.raises(ValueError, match="another run"):
        read(known_model("gpt2", True), made(3), store=tmp_path, places=())
    hooked = wrap(known_model("gpt2", True)).hooked([("resid_pre", 0, lambda x: 2 * x)])
    with hooked, pytest.raises(ValueError, match="carries hooks"):
        read(known_model("gpt2", True), made(3), store=tmp_path / "new", places=())
    assert passes.rows == []


@pytest.mark.parametrize("stop", [None, 0, 2, 5])
def test_the_model_is_left_as_it_was(stop: int | None, passes: Passes, known_model: Callable[..., Any]) -> None:
    model = known_model("gpt2", True)
    weights = {name: (x.detach().clone(), x.requires_grad) for name, x in model.named_parameters()}
    inner, seen = model.original_model, []
    inner.train()
    next(inner.children()).eval()  # flags that differ between modules
    flags = [module.training for module in inner.modules()]
    with wrap(model).hooked([("resid_pre", 1, lambda x: seen.append(1))]):
        hooks = {name: list(point.fwd_hooks) for name, point in model.hook_dict.items()}
        passes.rows, passes.stop = [], stop
        try:
            read(model, made(4), memory_budget=1)
            assert stop is None
        except KeyboardInterrupt:
            assert stop is not None
        assert {name: list(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
        assert len(seen) == (len(passes.rows) if stop is None else stop)  # and was run in every pass
    assert [module.training for module in inner.modules()] == flags
    inner.eval()
    assert torch.is_grad_enabled()
    for name, x in model.named_parameters():
        assert torch.equal(x, weights[name][0]) and x.requires_grad == weights[name][1] and x.grad is None


def test_what_cannot_be_read_is_refused_before_any_pass(passes: Passes, known_model: Callable[..., Any]) -> None:
    model, prompts = known_model("gpt2", True), made(3)
    passes.rows, passes.stop = [], 0
    longer = made(1, n_demos=14)[0]
    edge = next(one for one in (made(1, n_demos=k, seed=s)[0] for k in range(8, 12) for s in range(60))
                if len(one.prompt) == 64)  # fmt: skip
    window = [edge, replace(edge, query=edge.query + 1)]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "no prompts"),
        ([*prompts, made(1, n_demos=4)[0]], {}, r"\[3, 4\] demonstrations"),
        (made(3, n_demos=1), {}, "at least 2"),
        ([*prompts, made(1, labels=((90,), (91,), (92,)))[0]], {}, r"\[2, 3\] labels"),
        ([longer, replace(longer, query=1)], {}, "prompt 0 has .* context window holds 64"),
        ([replace(one, label_tokens=((90, 5), (91,))) for one in window], {}, "has 65 tokens with its label"),
        (made(3, queries=[2, 2, 2]), {}, "1 different queries"),
        (prompts, {"n_references": 1}, "n_references=1"),
        (prompts, {"places": ["ask", "demo"]}, "expected a list of some of ask, text, alone"),
        (prompts, {"places": "ask"}, "expected a list"),
    ]
    for given, options, message in cases:
        with pytest.raises(ValueError, match=message):
            read(model, given, **options)
    assert passes.rows == []
    passes.stop = None
    assert np.isfinite(read(model, window, places=()).label_log_probs).all()  # a prompt that fills the window is none


def test_a_model_without_patterns_is_refused(known_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DemoAttention, "see", lambda *_: None)  # as where attention is computed without a pattern
    with pytest.raises(ValueError, match="no attention pattern"):
        read(known_model("gpt2", True), made(2))


def test_a_demonstration_is_not_held_against_itself_as_a_query() -> None:
    prompts = [replace(one, query=i, demos=(1, 7, 8)) for i, one in enumerate(made(3))]
    references = References([0, 1, 2], {}, torch.zeros(3, 0))
    apart = references.other(prompts)
    assert apart[0].tolist() == [[False, False, True], [False, True, True], [False, True, True]]
    assert apart[1].tolist() == [[True, False, True]] * 3  # its own query is its first demonstration
    of_another_task = references.other([replace(prompts[0], demo_task="capitals")])
    assert of_another_task[0].tolist() == [[False, True, True]] * 3  # rows of another frame
    assert References([0, 1], {}, torch.zeros(2, 0)).other(prompts[:1])[0, 0].tolist() == [False, True]  # none is left
