"""The only code that touches hook points."""
