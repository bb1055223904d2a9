"""Tasks: prompts with named roles, and the corpora they are made of."""
