"""Gradient steps on texts: whose weights change, by how much, and what the changed model says; no copy of a weight."""
