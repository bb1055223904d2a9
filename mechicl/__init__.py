"""mechicl: by what mechanism does a transformer learn from its context?"""
