"""Few-shot texts: what a language model says of them, and what the accounts may read: steps, kernels, attention."""
