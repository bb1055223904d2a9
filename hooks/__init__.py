"""First floor: the only code that touches hook points.

`wrap` gives one face over both kinds of TransformerLens model, `capture_roles` reduces activations to a prompt's roles
while the forward pass runs, `score` gives log-probabilities of continuations, `patch_heads` replaces heads' outputs and
reads a metric again, `attribute_heads` estimates the same by gradients.
"""

from mechicl.hooks.attribution import AttributedHeads, attribute_heads
from mechicl.hooks.capture import Capture, capture_roles
from mechicl.hooks.patch_items import PatchItem, log_odds, span_log_prob
from mechicl.hooks.patching import PatchedHeads, patch_heads
from mechicl.hooks.replacements import Interchange, MeanActivations, Zero, mean_activations
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import WrappedModel, wrap

__all__ = [
    "AttributedHeads",
    "Capture",
    "Interchange",
    "MeanActivations",
    "PatchItem",
    "PatchedHeads",
    "WrappedModel",
    "Zero",
    "attribute_heads",
    "capture_roles",
    "log_odds",
    "mean_activations",
    "patch_heads",
    "score",
    "span_log_prob",
    "wrap",
]
