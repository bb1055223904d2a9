"""What a report says of how parts of a model were measured, and of what that does not show."""

METHOD = [
    (
        "Two checkpoints",
        "Both are of one model's training: the one nearest to the generalising strategy, and the one nearest to the "
        "memorising strategy after it. The effect is d_rel on sequences that training never drew; intervals resample "
        "sequences.",
    ),
    (
        "Transplants and patches",
        "Weights, or what parts compute on the same sequence, are taken from one checkpoint and put into the other. "
        "Of weights all sets of parts are tried, so that each part has a mean share over all orders. Controls: the "
        "later checkpoint with its residual stream in another order, the change of weights in random order, and "
        "another model where the run has one.",
    ),
    (
        "Ablations",
        "What a part computes is moved towards its mean over sequences, all the way or a little, beside changes as "
        "large in random directions. Parts are named on half of the sequences, corrected over all, and judged on the "
        "others.",
    ),
    (
        "Probes",
        "Ridges read counts, both strategies' predictions and the posterior over the pool from states; what counts "
        "is R² beyond the other strategy's quantities, held out by sequence.",
    ),
]
CAVEATS = [
    (
        "A d_rel near neither strategy",
        "A changed model may follow no strategy at all. Its d_rel then still is a number; the residual says whether to "
        "read it. Shares over all orders are means over all sets of parts, such models among them.",
    ),
    (
        "Shares of parts need a common basis",
        "Weights and activations of one checkpoint fit the other because training went on from it. As training drifts, "
        "parts that do the same fit less, and what they do together grows: shares tell what can be moved alone.",
    ),
    (
        "What can be read need not be used",
        "Probes tell what states hold, transplants and patches what makes the difference.",
    ),
]
KERNEL_METHOD = [
    (
        "The kernel over training",
        "Log attention from the query to the pairs is regressed onto the Gaussian kernel of the generalising "
        "predictor, beside place, label and what a pair draws from any query, on several sets of contexts; intervals "
        "are Student's t over these. As a control, attention that the model pays in other contexts.",
    )
]
