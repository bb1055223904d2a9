"""What each account predicts: pure functions of (examples, query). `gradient` has those of the gradient account."""
