"""The command line's options, messages and printing: what `python -m mechicl` is made of."""
