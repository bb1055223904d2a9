"""The recovery study: organisms made to follow one account, and the account that each is attributed to."""
