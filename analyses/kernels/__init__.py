"""The kernel account: attention as weights of a kernel regression over the demonstrations."""
