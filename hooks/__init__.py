"""First floor: the only code that touches hook points.

`wrap` gives one face over both kinds of TransformerLens model, `capture_roles` reduces activations to a prompt's roles
while the forward pass runs, `score` gives log-probabilities of continuations.
"""

from mechicl.hooks.capture import Capture, capture_roles
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import WrappedModel, wrap

__all__ = ["Capture", "WrappedModel", "capture_roles", "score", "wrap"]
