"""Transformers trained over a grid of task diversities: the organisms of the Bayesian account."""
