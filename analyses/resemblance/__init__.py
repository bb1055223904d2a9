"""Does in-context learning resemble fine-tuning on the same demonstrations? Measures beside their controls."""
