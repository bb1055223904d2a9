"""Models beside accounts: how each kind of task is read, and what is found inside."""
