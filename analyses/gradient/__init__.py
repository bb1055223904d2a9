"""Parts of the gradient account of priming: item by item against real steps, growth with the error, words, report."""
