"""Demonstrations of few-shot prompts: what attention, keys, values and residual streams do with them."""
