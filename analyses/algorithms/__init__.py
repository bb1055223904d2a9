"""Which algorithm, and how many steps of it, predicts what a model of in-context regression answers?"""
