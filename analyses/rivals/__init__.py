"""Models beside accounts: their predictions read, the accounts' heads patched, and the study that recovers them."""
