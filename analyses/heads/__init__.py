"""Parts of the localisation of heads: effects, splits, selection, controls, curves, paths, pictures, report."""
