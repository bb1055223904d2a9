"""What each account predicts: pure functions of (examples, query).

`gradient` has those of the gradient account, `kernels` and `label_votes` those of the kernel account (`hmm_kernels` the
kernel of its theorem, where it is known), `classification` the ideal predictors of in-context classification.
"""
