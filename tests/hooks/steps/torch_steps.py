"""The oracle of gradient steps: a deep copy of the transformers model a learner, and torch's own optimiser."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn


def saved(folder: Path, target: Path, tokenizer: Any, tied: bool) -> Path:
    """A random model of the same architecture as that in `folder`, with or without tied embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = tied
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


class TorchLearners:
    """Learners as copies of a transformers model."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    def learned(
        self,
        learner: Sequence[Any],
        rate: float,
        *,
        parameters: Any = "all",
        optimizer: str = "SGD",
        penalty: Callable[[Any], torch.Tensor] | None = None,
    ) -> tuple[Any, list[float]]:
        """A copy after one step a text, and the losses before each."""
        model = copy.deepcopy(self.model)
        masks = {name: mask for name, p in model.named_parameters() if (mask := mask_of(name, p, model, parameters))}
        steps = getattr(torch.optim, optimizer)([model.get_parameter(name) for name in masks], lr=rate)
        losses = []
        for text in learner:
            model.zero_grad()
            loss = text_loss(model, text)
            (loss if penalty is None else loss + penalty(model)).backward()
            for name, mask in masks.items():
                mask(model.get_parameter(name).grad)
            steps.step()
            losses.append(loss.item())
        return model, losses

    def after(
        self, learners: Sequence[Any], targets: Sequence[Sequence[Any]], rate: float, **options: Any
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Scores of every learner's targets, and its losses: before each step, and of its last text after all."""
        scores, losses = [], []
        for learner, own in zip(learners, targets, strict=True):
            model, before = self.learned(learner, rate, **options)
            with torch.no_grad():
                scores.append([log_prob(model, target) for target in own])
                losses.append([*before, text_loss(model, learner[-1]).item()])
        return scores, losses

    def before(self, targets: Sequence[Sequence[Any]]) -> list[list[float]]:
        """Scores under the model's own weights."""
        with torch.no_grad():
            return [[log_prob(self.model, target) for target in own] for own in targets]


def text_loss(model: Any, text: Any) -> torch.Tensor:
    """Mean of -log P over the text's scored tokens."""
    logits = model(input_ids=torch.tensor([text.tokens])).logits[0, text.start - 1 : -1]
    return nn.functional.cross_entropy(logits, torch.tensor(text.tokens[text.start :]))


def log_prob(model: Any, text: Any) -> float:
    """Summed log-probability of the scored tokens."""
    return -text_loss(model, text).item() * (len(text.tokens) - text.start)


def mask_of(name: str, parameter: nn.Parameter, model: Any, parameters: Any) -> Callable[[torch.Tensor], Any] | None:
    """What takes the part of a gradient away that is not chosen; None where nothing of the parameter is chosen."""
    if callable(parameters):
        return _all if parameters(name) else None
    if parameters == "key_value":
        if ".attn.c_attn." in name:  # queries, keys, values side by side in the last axis
            return lambda gradient: gradient[..., : gradient.shape[-1] // 3].zero_()
        if ".query_key_value." in name:  # head by head: queries, keys, values
            return lambda gradient: gradient.view(model.config.num_attention_heads, 3, -1)[:, 0].zero_()
        return _all if ".k_proj." in name or ".v_proj." in name else None
    places = {"mlp": [".mlp."], "attention": [".attn.", ".self_attn.", ".attention."], "all": [""]}[parameters]
    return _all if any(place in name for place in places) else None


def _all(gradient: torch.Tensor) -> None:
    pass
