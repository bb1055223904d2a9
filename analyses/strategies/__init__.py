"""The Bayesian account: memorising and generalising strategies over training, from a run of trained models."""
