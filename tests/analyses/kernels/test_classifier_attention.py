"""Attention of trained classifiers beside the ideal kernel."""

import numpy as np
import pytest

from mechicl.analyses.kernels.classifier_attention import classifier_kernels
from mechicl.organisms.classifiers import find_classifier, load_classifier
from mechicl.predictors.classification import bandwidth, generalising_weights
from mechicl.tasks.classification import ClassificationTask

TASK = ClassificationTask(diversity=256, n_pairs=12)


class Ideal:
    """Attention that is the generalising predictor's weights; a second head's is drawn anew for each pair."""

    def query_attention(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(0).dirichlet(np.ones(x.shape[1]), size=len(x))
        return np.stack([generalising_weights(query, x, noise=TASK.noise), random], 1)


def test_the_ideal_kernel_is_found_with_its_bandwidth() -> None:
    found = classifier_kernels(Ideal(), TASK, n_contexts=60, n_permutations=99).frame.set_index(["head", "kernel"])
    ideal = found.loc[(0, "ideal")]
    assert ideal["r2"] == pytest.approx(1, abs=1e-9)
    assert ideal["bandwidth"] == pytest.approx(bandwidth(TASK.dim, noise=TASK.noise), rel=1e-6)
    assert ideal["known"] == bandwidth(TASK.dim, noise=TASK.noise)
    assert (found.loc[0, "r2"].drop("ideal") < 0.999).all()


def test_attention_that_looks_at_nothing_follows_no_kernel() -> None:
    found = classifier_kernels(Ideal(), TASK, n_contexts=60, n_permutations=99).frame
    random = found[found["head"] == 1]
    assert (random["p_fwe"] > 0.05).all()
    assert (random["unique_r2"] < 0.02).all()


def test_the_general_classifier_follows_the_kernel_and_the_memorising_one_hardly() -> None:
    known = {}
    for name in ("classifier-general", "classifier-memory"):
        found = classifier_kernels(load_classifier(name), find_classifier(name).task, n_contexts=60, n_permutations=99)
        known[name] = found.frame.set_index("kernel")
    assert (known["classifier-general"]["unique_r2"] > 0.75).all()
    assert (known["classifier-memory"]["unique_r2"] < 0.4).all()
    assert known["classifier-general"].loc["ideal", "p_fwe"] == 0.01


def test_too_few_contexts_are_refused() -> None:
    with pytest.raises(ValueError, match="n_contexts=7; expected at least 10"):
        classifier_kernels(Ideal(), TASK, n_contexts=7)


def test_the_picture_shows_the_numbers() -> None:
    found = classifier_kernels(Ideal(), TASK, n_contexts=40, n_permutations=0)
    drawn = found.plot().lines[1].get_xdata()
    assert list(drawn) == list(found.frame.query("head == 0")["r2"])
