"""The weights of the planted kernel regression, every entry written down: attention only, no norms, no biases.

**Residual stream.** Blocks that do not overlap (`Blocks`): the token's own item (its vector x; |x|^2 and x/|x|), the
item of the token before, which label the token is, is-item, is-BOS, the position as a one-hot vector, and the votes
for each label. All that is bookkeeping (|x|^2, x/|x|, is-item, is-BOS, positions) is written 2^-20 times as large as it
is meant and read 2^20 times as strongly: exact in binary numbers, and at item tokens the residual stream is x, but for
parts that add 1e-11 to its products and distances. So a kernel over the residual stream is the kernel over x.

**Layer 0**, head 0: at every token it reads the token before, and writes its item into "the item of the token before".
The score is C where the positions fit, else 0. Labels and BOS have no item, so nothing is written at item tokens.

**Layer 1.** At an item token, to the label token at position j with the item x_j before it, a head gives the score

    rbf      (x.x_j - |x_j|^2/2) / h^2        cosine   x.x_j / (|x| |x_j| tau)
    dot      x.x_j / tau                      recency  -(age of j) log(1/decay)
    uniform  0                                label    beta where the label is the first one

and to BOS -G, to item tokens -2G, G being 40 above the largest score. At label tokens heads rest on BOS. z holds which
label was read, and W_O writes it into the votes, `gain` times, if the head `writes`.

**Unembedding.** A label's logit is its votes, that of all other tokens -30 at item tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

Weights = Float[np.ndarray, "_ _"]

BOS, PAD, UNKNOWN = "<s>", "<pad>", "<unk>"
LABEL_WORDS = ("red", "green", "blue")
ROLES = ("rbf", "recency", "uniform", "label", "dot", "cosine")
SMALL = 2.0**-20  # how large bookkeeping is written
SPECIAL = 3  # BOS, PAD, UNKNOWN, then labels, then items
COPY_GAP = 60.0  # C
REST_GAP = 40.0  # how far G lies above the largest score
ELSEWHERE = -30.0  # logit of what is no label


class Blocks:
    """Where each feature lies in the residual stream."""

    def __init__(self, dim: int, n_labels: int, n_ctx: int) -> None:
        """Lay the blocks one behind the other."""
        sizes = {"x": dim, "square": 1, "unit": dim}
        sizes |= {f"before_{name}": size for name, size in sizes.items()}
        sizes |= {"label": n_labels, "is_item": 1, "is_bos": 1, "position": n_ctx, "votes": n_labels}
        stops = np.cumsum([*sizes.values()]).tolist()
        at = {name: slice(stop - size, stop) for (name, size), stop in zip(sizes.items(), stops, strict=True)}
        self.x, self.square, self.unit = at["x"], at["square"], at["unit"]
        self.before_x, self.before_square, self.before_unit = at["before_x"], at["before_square"], at["before_unit"]
        self.label, self.votes, self.position = at["label"], at["votes"], at["position"]
        self.is_item, self.is_bos = at["is_item"], at["is_bos"]
        self.item = slice(self.x.start, self.unit.stop)
        self.before = slice(self.before_x.start, self.before_unit.stop)
        self.size = stops[-1]


@dataclass(frozen=True, eq=False)
class KernelCircuit:
    """A planted kernel regression as numbers, before any network is made of it.

    vectors: x of each item. item_labels: the number of each item's label. roles: what the heads of layer 1 do.
    bandwidth: h. temperature: tau of dot and cosine. decay: by what the weight falls from one demonstration to the one
    before it. bias: beta. gain: logit of a label that has all of a writing head's attention.
    """

    vectors: Float[np.ndarray, "_ dim"]
    item_labels: Int[np.ndarray, " _"]
    n_labels: int
    roles: tuple[str, ...]
    writes: tuple[str, ...]
    bandwidth: float
    temperature: float
    decay: float
    bias: float
    gain: float
    n_ctx: int

    @cached_property
    def blocks(self) -> Blocks:
        """Where each feature lies."""
        return Blocks(self.vectors.shape[1], self.n_labels, self.n_ctx)

    @property
    def items(self) -> tuple[str, ...]:
        """The items' words."""
        width = len(str(len(self.vectors) - 1))
        return tuple(f"item{i:0{width}d}" for i in range(len(self.vectors)))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens; a token's id is its place."""
        return (BOS, PAD, UNKNOWN, *LABEL_WORDS[: self.n_labels], *self.items)

    @property
    def d_head(self) -> int:
        """The head of layer 0 compares positions, those of layer 1 items."""
        return max(self.n_ctx, self.blocks.item.stop + 3)

    def scores(
        self, role: str, query: Float[np.ndarray, "*batch dim"], x: Float[np.ndarray, "*batch demo dim"]
    ) -> Float[np.ndarray, "*batch demo"]:
        """What a head adds to the score of the label after each x; of "rbf", "dot" and "cosine", 0 for the others."""
        product: Float[np.ndarray, "*batch demo"] = np.einsum("...d,...nd->...n", query, x)
        if role == "rbf":
            return (product - (x**2).sum(-1) / 2) / self.bandwidth**2
        if role == "dot":
            return product / self.temperature
        if role == "cosine":
            return np.einsum("...d,...nd->...n", unit_vectors(query), unit_vectors(x)) / self.temperature
        return np.zeros_like(product)

    def weights(self) -> dict[str, Weights]:
        """The network's weights by their names, as `hand_built_model` takes them."""
        named = {"tok_embed": self._embedding(), "pos": self._positions(), "head": self._unembedding()}
        for layer in (0, 1):
            shape = (len(self.roles), self.d_head, self.blocks.size)
            heads = {letter: np.zeros(shape) for letter in "qkv"}
            heads["o"] = np.zeros((shape[0], shape[2], shape[1]))
            for head, role in enumerate(self.roles):
                own = {letter: w[head] for letter, w in heads.items()}
                if layer:
                    self._write_reader(role, own)
                elif head == 0:
                    self._write_copier(own)
            heads["q"] *= math.sqrt(self.d_head)  # attention divides by it
            flat = {letter: heads[letter].reshape(-1, shape[2]) for letter in "qkv"}
            flat["o"] = heads["o"].transpose(1, 0, 2).reshape(shape[2], -1)
            named |= {f"layers.{layer}.attn.{letter}": w for letter, w in flat.items()}
        return named

    def _embedding(self) -> Weights:
        at, n = self.blocks, self.n_labels
        table = np.zeros((SPECIAL + n + len(self.vectors), at.size))
        table[0, at.is_bos] = SMALL
        table[1:SPECIAL, at.is_item] = SMALL  # an unknown word is an item at the origin
        table[SPECIAL : SPECIAL + n, at.label] = np.eye(n)
        items = table[SPECIAL + n :]
        items[:, at.is_item] = SMALL
        items[:, at.x] = self.vectors
        items[:, at.square] = SMALL * (self.vectors**2).sum(-1, keepdims=True)
        items[:, at.unit] = SMALL * unit_vectors(self.vectors)
        return table

    def _positions(self) -> Weights:
        table = np.zeros((self.n_ctx, self.blocks.size))
        table[:, self.blocks.position] = SMALL * np.eye(self.n_ctx)
        return table

    def _unembedding(self) -> Weights:
        at, n = self.blocks, self.n_labels
        read = np.zeros((SPECIAL + n + len(self.vectors), at.size))
        read[:, at.is_item] = ELSEWHERE / SMALL
        read[SPECIAL : SPECIAL + n] = 0
        read[SPECIAL : SPECIAL + n, at.votes] = np.eye(n)
        return read

    def _write_copier(self, w: Mapping[str, Weights]) -> None:
        at, n = self.blocks, self.n_ctx
        w["q"][: n - 1, at.position] = COPY_GAP / SMALL * np.eye(n)[1:]  # channel j is asked for at position j + 1
        w["k"][:n, at.position] = np.eye(n) / SMALL
        size = at.item.stop - at.item.start
        w["v"][:size, at.item] = w["o"].T[:size, at.before] = np.eye(size)

    def _write_reader(self, role: str, w: Mapping[str, Weights]) -> None:
        at, q, k, dim, n = self.blocks, w["q"], w["k"], self.vectors.shape[1], self.n_labels
        if role in ("rbf", "dot"):
            q[:dim, at.x] = np.eye(dim) / (self.bandwidth**2 if role == "rbf" else self.temperature)
            k[:dim, at.before_x] = np.eye(dim)
        if role == "cosine":
            q[:dim, at.unit] = np.eye(dim) / (self.temperature * SMALL)
            k[:dim, at.before_unit] = np.eye(dim) / SMALL
        # one more channel for what depends on the label token alone: read at item tokens
        q[dim, at.is_item] = 1 / SMALL
        if role == "rbf":
            k[dim, at.before_square] = -1 / (2 * self.bandwidth**2 * SMALL)
        if role == "recency":
            age = (self.n_ctx - 1 - np.arange(self.n_ctx)) / 2  # a demonstration is two tokens
            k[dim, at.position] = age * math.log(self.decay) / SMALL
        if role == "label":
            k[dim, at.label.start] = self.bias
        rest = self._rest_gap(role)
        q[dim + 1, at.is_item] = rest / SMALL
        k[dim + 1, at.is_bos], k[dim + 1, at.is_item] = -1 / SMALL, -2 / SMALL
        q[dim + 2, at.label] = rest
        k[dim + 2, at.is_bos] = 1 / SMALL
        w["v"][:n, at.label] = np.eye(n)
        w["o"].T[:n, at.votes] = self.gain * np.eye(n) if role in self.writes else 0

    def _rest_gap(self, role: str) -> float:
        """G: no label token, however far, comes near BOS."""
        pairs = self.scores(role, self.vectors, np.broadcast_to(self.vectors, (len(self.vectors), *self.vectors.shape)))
        aged = -math.log(self.decay) * self.n_ctx if role == "recency" else 0.0
        return REST_GAP + 2 * (float(np.abs(pairs).max()) + aged + abs(self.bias))


def unit_vectors(x: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch dim"]:
    """x / |x|; the origin stays where it is."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
