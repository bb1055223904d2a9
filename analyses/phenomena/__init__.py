"""The phenomena of in-context learning as experiments, beside what a kernel account says of them."""
