import numpy as np
import pytest

from mechicl.strategies.threshold import first_described, kept_checkpoints


def test_the_threshold_is_the_last_of_the_first_checkpoints_below_it():
    falls = np.array([[1.0, 0.6, 0.25, 0.1, 0.0], [1.0, 0.1, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 0.3, 0.0]]).T[None]
    apart = np.ones((1, 3))
    assert first_described(falls, apart, share=0.2).tolist() == [3, 1, 3]
    assert first_described(falls, apart, share=0.3).tolist() == [2, 1, 3]
    assert kept_checkpoints(falls, apart, share=0.2).tolist() == [False] * 3 + [True] * 2
    assert kept_checkpoints(falls, apart, share=1.0).all()


def test_seeds_are_averaged_before_they_are_judged():
    one, other = np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
    distances = np.stack([one, other])[..., None]
    assert first_described(distances, np.ones((2, 1)), share=0.2).tolist() == [2]
    assert first_described(distances, np.ones((2, 1)), share=0.5).tolist() == [1]


def test_distances_that_are_next_to_nothing_keep_every_checkpoint():
    rounding = np.random.default_rng(0).uniform(0, 1e-8, (1, 20, 3))
    assert kept_checkpoints(rounding, np.full((1, 3), 0.1)).all()
    assert not kept_checkpoints(rounding, np.full((1, 3), 1e-8)).all()


@pytest.mark.parametrize(("share", "spoil", "said"), [(-0.1, 0.0, "share=-0.1"), (0.2, np.nan, "not finite")])
def test_what_has_no_threshold_is_refused(share, spoil, said):
    with pytest.raises(ValueError, match=said):
        kept_checkpoints(np.ones((1, 3, 2)) + spoil, np.ones((1, 2)), share=share)
