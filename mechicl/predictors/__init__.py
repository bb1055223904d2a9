"""What each account predicts: pure functions of (examples, query)."""
