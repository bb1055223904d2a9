"""MLPs as the context changes them: their parts, the updates that replace a context, and the proof in the weights."""
