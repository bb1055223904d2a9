"""A model that is a kernel regression, to the last digit: the ground truth of the kernel account.

A few-shot task whose texts are single tokens ("item017"), each with a known vector x, and whose labels are single
tokens too. The model answers a query by heads that read the demonstrations' labels (weights in
`planted_kernel_circuit`); with w the attention from the query's token to the label tokens, over demonstrations 1 to n,

    "rbf"      w_i = softmax_i[-|x - x_i|^2 / 2 h^2]      a Gaussian kernel of bandwidth h
    "dot"      w_i = softmax_i[x.x_i / tau]               "cosine"  w_i = softmax_i[cos(x, x_i) / tau]
    "recency"  w_i proportional to decay^(n - i)          "uniform" w_i = 1/n
    "label"    w_i proportional to e^beta for the first label, to 1 for the others

    logit of label y = gain sum over heads that write of sum_i w_i [y_i = y]

so with one writing head P(y) rises with the Nadaraya-Watson estimate of it, and no other head matters. A head attends
to nothing but label tokens. All heads of layer 0 but head 0 have equal attention everywhere and write nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.organisms.hand_built import hand_built_model, word_tokenizer
from mechicl.organisms.kernel_circuit import (
    BOS,
    ELSEWHERE,
    LABEL_WORDS,
    PAD,
    ROLES,
    SPECIAL,
    UNKNOWN,
    KernelCircuit,
)
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.fewshot_task import FewShotTask

RULES = ("centres", "linear")
TEMPLATE = "{text} {label}\n"


@dataclass(frozen=True, eq=False, repr=False)
class PlantedKernel:
    """A planted kernel regression, a task for it, and the truth about both.

    model: a TransformerBridge with a tokenizer, 2 layers. heads: role -> (layer, head). circuit: the numbers behind the
    weights, among them `vectors`, one row for each row of the task's frame.
    """

    model: Any
    task: FewShotTask
    heads: dict[str, tuple[int, int]]
    circuit: KernelCircuit

    def __repr__(self) -> str:
        """One line."""
        return f"PlantedKernel({len(self.vectors)} items, h={self.bandwidth:g}, {self.heads}, writes={self.writes})"

    @property
    def tokenizer(self) -> Any:
        """One token a word."""
        return self.model.tokenizer

    @property
    def bandwidth(self) -> float:
        """The length h of the "rbf" head, in units of x."""
        return self.circuit.bandwidth

    @property
    def writes(self) -> tuple[str, ...]:
        """The roles whose heads write to the logits."""
        return self.circuit.writes

    @property
    def vectors(self) -> Float[np.ndarray, "_ dim"]:
        """The vector x of each row of the task's frame."""
        return self.circuit.vectors

    def attention(self, prompts: Sequence[FewShotPrompt]) -> dict[str, Float[np.ndarray, "item demo"]]:
        """By role, the attention from the query's last token to each demonstration's label token, in closed form.

        Prompts of equally many demonstrations of this model's words, BOS first; else a ValueError.
        """
        query, x, labels = self._read(prompts)
        return {role: self._attention(role, query, x, labels) for role in self.heads}

    def label_log_probs(self, prompts: Sequence[FewShotPrompt]) -> Float[np.ndarray, "item label"]:
        """The log-probability, nats, of each label that may be answered (`FewShotPrompt.labels`), in closed form."""
        query, x, labels = self._read(prompts)
        votes = np.zeros((len(x), self.circuit.n_labels))
        shown = labels[..., None] == np.arange(self.circuit.n_labels)
        for role in self.writes:
            votes += self.circuit.gain * (self._attention(role, query, x, labels)[..., None] * shown).sum(1)
        others = len(self.circuit.vocabulary) - self.circuit.n_labels
        total = np.log(np.exp(votes).sum(-1, keepdims=True) + others * math.exp(ELSEWHERE))
        asked = np.array([[tokens[0] - SPECIAL for tokens in prompt.label_tokens] for prompt in prompts])
        return np.asarray(np.take_along_axis(votes - total, asked, axis=1))

    def _attention(
        self,
        role: str,
        query: Float[np.ndarray, "item dim"],
        x: Float[np.ndarray, "item demo dim"],
        labels: Int[np.ndarray, "item demo"],
    ) -> Float[np.ndarray, "item demo"]:
        scores = self.circuit.scores(role, query, x)
        if role == "recency":
            scores = scores + math.log(self.circuit.decay) * np.arange(x.shape[1])[::-1]
        if role == "label":
            scores = scores + self.circuit.bias * (labels == 0)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def _read(
        self, prompts: Sequence[FewShotPrompt]
    ) -> tuple[Float[np.ndarray, "item dim"], Float[np.ndarray, "item demo dim"], Int[np.ndarray, "item demo"]]:
        """Vectors of queries and demonstrations, and the numbers of the labels shown, by the prompts' tokens."""
        if not prompts:
            raise ValueError("got no prompts; make them with fewshot_prompts(planted.task, ...)")
        tokens = np.array([prompt.prompt.tokens for prompt in prompts if len(prompt.prompt) == len(prompts[0].prompt)])
        n_demos, first_item = (tokens.shape[-1] - 2) // 2, SPECIAL + self.circuit.n_labels
        n_vocab = len(self.circuit.vocabulary)
        if len(tokens) != len(prompts) or tokens.shape[-1] != 2 * n_demos + 2 or n_demos < 1:
            raise ValueError(
                "expected prompts of equally many demonstrations of two tokens each, BOS first; make them with "
                f"fewshot_prompts(planted.task, ...), got lengths {sorted({len(p.prompt) for p in prompts})}"
            )
        items, labels = tokens[:, 1::2], tokens[:, 2::2] - SPECIAL
        known = (items >= first_item).all() and (items < n_vocab).all()
        if not known or tokens[:, 0].any() or (labels < 0).any() or (labels >= self.circuit.n_labels).any():
            raise ValueError(
                "the prompts have other words than this model's; make them from its own task and tokenizer"
            )
        x = self.vectors[items - first_item]
        return x[:, -1], x[:, :-1], labels


def planted_kernel(
    *,
    n_items: int = 128,
    dim: int = 4,
    n_labels: int = 2,
    rule: str = "centres",
    bandwidth: float = 0.6,
    heads: Sequence[str] = ROLES,
    writes: Sequence[str] = ("rbf",),
    temperature: float = 0.25,
    decay: float = 0.7,
    bias: float = 2.0,
    gain: float = 5.0,
    n_ctx: int = 80,
    dtype: str = "float32",
    seed: int = 0,
) -> PlantedKernel:
    """A model whose head "rbf" is a Gaussian kernel regression on the items' vectors, beside heads that are not.

    rule: a label is the nearest of n_labels centres, or with "linear" the largest of n_labels linear functions; items
    are drawn with `seed`, at about 1 from the origin. heads: the heads of layer 1, in this order. writes: those that
    write to the logits. bandwidth: may be infinite, which makes "rbf" a uniform head. temperature (tau), decay, bias
    (beta), gain: as above. n_ctx: positions; n demonstrations take 2 n + 2. dtype: "float32" or "float64".

    Errors (ValueError): sizes and numbers out of range, unknown roles, items that do not have all labels.

    >>> planted = planted_kernel(n_items=20, bandwidth=0.5)
    >>> planted.heads["rbf"], planted.task.example(0).text
    ((1, 0), 'item00 red')
    """
    roles, writing = tuple(heads), tuple(writes)
    _check_sizes({"n_items": (n_items, 4), "dim": (dim, 1), "n_labels": (n_labels, 2), "n_ctx": (n_ctx, 4)})
    if n_labels > len(LABEL_WORDS):
        raise ValueError(f"got n_labels={n_labels}; expected 2 to {len(LABEL_WORDS)}")
    _check_roles(roles, writing)
    _check_numbers(bandwidth=bandwidth, temperature=temperature, decay=decay, bias=bias, gain=gain)
    if rule not in RULES:
        raise ValueError(f"got rule={rule!r}; expected one of {', '.join(RULES)}")
    vectors, labels = _draw_items(n_items, dim, n_labels, rule, np.random.default_rng(seed))
    circuit = KernelCircuit(vectors, labels, n_labels, roles, writing, bandwidth, temperature, decay, bias, gain, n_ctx)
    tokenizer = word_tokenizer(circuit.vocabulary, bos=BOS, pad=PAD, unknown=UNKNOWN)
    model = hand_built_model(
        "planted-kernel",
        circuit.weights(),
        n_layers=2,
        n_heads=len(roles),
        d_head=circuit.d_head,
        tokenizer=tokenizer,
        dtype=dtype,
    )
    frame = pd.DataFrame({"text": circuit.items, "label": [LABEL_WORDS[label] for label in labels]})
    task = FewShotTask("planted-kernel", frame, TEMPLATE)
    return PlantedKernel(model, task, {role: (1, head) for head, role in enumerate(roles)}, circuit)


def _draw_items(
    n_items: int, dim: int, n_labels: int, rule: str, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "_ dim"], Int[np.ndarray, " _"]]:
    """Vectors, and the number of each one's label."""
    directions = rng.standard_normal((n_labels, dim)) / math.sqrt(dim)
    noise = rng.standard_normal((n_items, dim)) / math.sqrt(dim)
    if rule == "linear":
        vectors = noise
        labels = (vectors @ directions.T).argmax(-1)
    else:
        # around each centre in turn, so that no label is rare
        vectors = directions[np.arange(n_items) % n_labels] + 0.7 * noise
        labels = ((vectors[:, None] - directions) ** 2).sum(-1).argmin(-1)
    if len(set(labels.tolist())) < n_labels:
        raise ValueError(f"the {n_items} items have only {len(set(labels.tolist()))} labels; take more items or a seed")
    return vectors, labels


def _check_sizes(sizes: dict[str, tuple[int, int]]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise ValueError(f"got {name}={value}; expected {least} or more")


def _check_roles(roles: Sequence[str], writes: Sequence[str]) -> None:
    if not roles or set(roles) - set(ROLES) or len(set(roles)) < len(roles):
        raise ValueError(f"got heads={tuple(roles)}; expected some of {', '.join(ROLES)}, each once")
    if set(writes) - set(roles):
        raise ValueError(f"got writes={tuple(writes)}; expected some of the heads {', '.join(roles)}")


def _check_numbers(*, bandwidth: float, temperature: float, decay: float, bias: float, gain: float) -> None:
    for name, value in (("bandwidth", bandwidth), ("temperature", temperature)):
        if not value > 0:
            raise ValueError(f"got {name}={value}; expected a number above 0")
    if not 0 < decay <= 1:
        raise ValueError(f"got decay={decay}; expected a number above 0, at most 1 (no recency)")
    if not (math.isfinite(bias) and math.isfinite(gain)):
        raise ValueError(f"got bias={bias}, gain={gain}; expected finite numbers")
