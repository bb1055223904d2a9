"""What a context does, written as an update: of every head's output, and of every MLP's weights."""
