"""The control that every analysis of a trained model needs: the same model, had it learned nothing."""

from __future__ import annotations

import copy
from typing import Any


def shuffled_weights(model: Any, *, seed: int = 0) -> Any:
    """A copy of a model in which every weight matrix has its entries in random order.

    Sizes, norms and the distribution of weights stay, what was learned goes. Vectors (norms, biases) are left as they
    are. Takes the memory of one more model; the model itself is left as it was.
    """
    import torch

    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.ndim >= 2:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied
