"""Changes of a model's weights, one for each of many learners, that no copy of the weights is needed for.

One gradient step on a text of T tokens changes a weight matrix by a sum of T outer products, dW = sum_t l_t r_t^T, with
r_t the layer's input and l_t minus the rate times the loss's gradient at its output. So the changed layer gives

    (W + dW) x = W x + sum_t l_t (r_t . x)

which is linear attention from x over the text's tokens (the dual form of a gradient step: Irie et al., arXiv
2202.05798; Dai et al., arXiv 2212.10559). All learners' models run in one batch, each in its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechicl.hooks.steps.sites import Site, swapped_parameters


@dataclass(frozen=True)
class Products:
    """dW[learner] = sum over t of left[learner, t] right[learner, t]^T, for a weight from `in` to `out`."""

    left: Float[Tensor, "learner token out"]
    right: Float[Tensor, "learner token in"]

    def taken(self, rows: Int[Tensor, " row"]) -> Products:
        """Those of the learners `rows`."""
        return Products(self.left[rows], self.right[rows])


@dataclass(frozen=True)
class Rows:
    """dW[learner, ids[t]] += right[t] for all t: what a step changes of an embedding."""

    ids: Int[Tensor, "learner token"]
    right: Float[Tensor, "learner token in"]

    def taken(self, rows: Int[Tensor, " row"]) -> Rows:
        """Those of the learners `rows`."""
        return Rows(self.ids[rows], self.right[rows])


@dataclass(frozen=True)
class Vectors:
    """The change of a gain or a bias."""

    shift: Float[Tensor, "learner out"]

    def taken(self, rows: Int[Tensor, " row"]) -> Vectors:
        """Those of the learners `rows`."""
        return Vectors(self.shift[rows])


Change = Products | Rows | Vectors


@dataclass(frozen=True)
class WeightUpdates:
    """Changes by the name of the parameter; a tied weight has those of all its places. `losses`: nats a token, one
    tensor [learner] a step, before that step.
    """

    n_learners: int
    sites: Sequence[Site]
    changes: dict[str, list[Change]] = field(default_factory=dict)
    losses: tuple[Float[Tensor, " learner"], ...] = ()

    def plus(self, more: dict[str, list[Change]], loss: Float[Tensor, " learner"]) -> WeightUpdates:
        """With the changes of one more step."""
        names = dict.fromkeys([*self.changes, *more])
        merged = {name: [*self.changes.get(name, []), *more.get(name, [])] for name in names}
        return replace(self, changes=merged, losses=(*self.losses, loss))

    def taken(self, rows: Int[Tensor, " row"]) -> WeightUpdates:
        """For a batch in which row i is learner rows[i]."""
        changes = {name: [change.taken(rows) for change in found] for name, found in self.changes.items()}
        return replace(self, n_learners=len(rows), changes=changes, losses=tuple(loss[rows] for loss in self.losses))

    def scaled(self, factor: float) -> WeightUpdates:
        """All changes times a factor."""

        def times(change: Change) -> Change:
            if isinstance(change, Vectors):
                return Vectors(change.shift * factor)
            if isinstance(change, Rows):
                return Rows(change.ids, change.right * factor)
            return Products(change.left * factor, change.right)

        return replace(self, changes={name: [times(c) for c in found] for name, found in self.changes.items()})

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the model with the changes: row i of every batch is learner i (a single learner serves all rows)."""
        with tapped(self.sites, self.changes, None):
            yield


class Tape:
    """What a pass of n learners leaves for the gradient: of every site its input and its output, in the order met."""

    def __init__(self, n_learners: int) -> None:
        self.n_learners = n_learners
        self.met: list[tuple[Site, Tensor, Tensor]] = []


@contextmanager
def tapped(sites: Sequence[Site], changes: dict[str, list[Change]], tape: Tape | None) -> Iterator[None]:
    """Add changes at the sites' outputs, and write what happens there onto a tape; without a trace afterwards."""
    with ExitStack() as stack:
        for site in sites:
            own = changes.get(site.weight or "", [])
            shifts = changes.get(site.bias or "", [])
            if tape is None and not own and not shifts:
                continue
            if site.kind == "norm":
                stack.enter_context(_norm_replaced(site, own, shifts, tape))
            else:
                handle = site.module.register_forward_hook(_hook(site, own, shifts, tape))
                stack.callback(handle.remove)
        yield


def _hook(site: Site, own: Sequence[Change], shifts: Sequence[Change], tape: Tape | None) -> Callable[..., Tensor]:
    def call(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        given = args[0]
        if site.kind == "embedding":
            out = _embedded(site, given, out, own)
            if tape is not None:
                # Where gradients start, whatever flags the weights carry; positions may be looked up once for all rows.
                out = out.detach().expand(tape.n_learners, *out.shape[1:]).clone().requires_grad_()
        else:
            out = _through(given, out, own)
            for change in shifts:
                out = out + _beside(change, out)
        if tape is not None:
            tape.met.append((site, given.detach(), out))
        return out

    return call


def _through(given: Tensor, out: Tensor, own: Sequence[Change]) -> Tensor:
    """W x + dW x, with x: [row ..., in]."""
    for change in own:
        flat, wide = given.reshape(len(given), -1, given.shape[-1]), out.reshape(len(out), -1, out.shape[-1])
        if isinstance(change, Vectors):
            raise ValueError("the change of a vector was given for a matrix")
        weights = flat @ change.right.mT  # [row, position, token]: how much each position attends to each token
        if isinstance(change, Products):
            if len(change.left) != len(wide):
                wide = wide + weights @ change.left
            elif torch.is_grad_enabled():
                wide = torch.baddbmm(wide, weights, change.left)
            else:  # into the layer's own output: a copy of it would take a tenth of a pass
                wide = wide.baddbmm_(weights, change.left)
        else:
            ids = change.ids[:, None].expand(len(wide), wide.shape[1], -1)
            wide = wide.scatter_add(2, ids, weights.expand(len(wide), -1, -1))
        out = wide.view_as(out)
    return out


def _embedded(site: Site, ids: Tensor, out: Tensor, own: Sequence[Change]) -> Tensor:
    """The embedding's rows with their changes; ids: [row position] (or one row for all, as of positions)."""
    for change in own:
        if isinstance(change, Vectors):
            raise ValueError("the change of a vector was given for a matrix")
        n = len(change.right)
        looked_up = ids if len(ids) == n or n == 1 else ids.expand(n, -1)
        if isinstance(change, Products):
            left = change.left.expand(len(looked_up), -1, -1)
            weights = left.gather(2, looked_up[:, None].expand(-1, left.shape[1], -1)).mT
        else:
            weights = (looked_up[:, :, None] == change.ids[:, None]).to(out.dtype)
        out = out + site.scale * (weights @ change.right)
    return out


@contextmanager
def _norm_replaced(site: Site, own: Sequence[Change], shifts: Sequence[Change], tape: Tape | None) -> Iterator[None]:
    """Let the norm run with a gain of 1 and no bias, then apply gain and bias here, with their changes.

    Where the norm has a hook point for its output, that is done before the point, so that hooks see what they should.
    """
    if "forward" in site.outer.__dict__:
        raise ValueError("weight updates are applied to this model already; add them up with `plus` instead of nesting")
    held: Mapping[str, Any] = site.module._parameters
    weight, bias = held["weight"], held.get("bias")
    forward = site.outer.forward
    point = getattr(site.outer, "hook_out", None)
    met = [False]

    def gained(normed: Tensor) -> Tensor:
        met[0] = True
        gain = weight + site.offset
        for change in own:
            gain = gain + _beside(change, normed)
        out = normed * gain
        out = out if bias is None else out + bias
        for change in shifts:
            out = out + _beside(change, out)
        if tape is not None:
            tape.met.append((site, normed.detach(), out))
        return out

    def changed(given: Tensor, *args: Any, **options: Any) -> Tensor:
        met[0] = False
        back = swapped_parameters(site.module, 1.0 - site.offset, 0.0)
        try:
            found: Tensor = forward(given, *args, **options)
        finally:
            back()
        return found if met[0] else gained(found)

    handle = point.register_forward_pre_hook(lambda _, args: gained(args[0])) if isinstance(point, nn.Module) else None
    site.outer.__dict__["forward"] = changed  # past nn.Module's own attributes, as TransformerLens' wrappers want it
    try:
        yield
    finally:
        del site.outer.__dict__["forward"]
        if handle is not None:
            handle.remove()


def _beside(change: Change, out: Tensor) -> Tensor:
    """A vector's change, one a row, shaped to be added to out: [row ..., out]."""
    if not isinstance(change, Vectors):
        raise ValueError("the change of a matrix was given for a vector")
    return change.shift.view(len(change.shift), *[1] * (out.ndim - 2), out.shape[-1]).to(out.dtype)
