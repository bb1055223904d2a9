"""What each account predicts: pure functions of (examples, query).

`gradient` has those of the gradient account, `kernels` and `label_votes` those of the kernel account (`hmm_kernels` the
kernel of its theorem, where it is known). Those of the Bayesian account, memorising and generalising, are in `urns`,
`chains`, `pooled_regression` and `classification`; `bayes` gives them for any of these tasks in one shape, and
`distances` says which of the two a model is nearer to.
"""
