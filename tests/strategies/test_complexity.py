import numpy as np
import pytest

from mechicl.strategies.complexity import code_bits, pool_bits, strategy_bits
from mechicl.tasks.urns import UrnTask


def short(x):
    return x


def documented(x: np.ndarray) -> np.ndarray:
    """Words that explain, of which a description length

    should know nothing, however long they may be.
    """
    return x  # neither of these


def longer(x, pool):
    weights = np.exp(-((x - pool) ** 2).sum(-1) / 2)
    return (weights / weights.sum()) @ np.tanh(pool)


def test_bits_of_random_pools_grow_in_proportion_to_the_diversity():
    bits = {diversity: pool_bits(UrnTask(diversity=diversity).pool).bits for diversity in (64, 128, 256, 512)}
    steps = np.diff(list(bits.values()))
    np.testing.assert_allclose(steps, steps[0] * np.array([1, 2, 4]), rtol=0.05)


def test_repetition_compresses_and_noise_does_not():
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2**64, (200, 8), dtype=np.uint64).view(np.float64)
    random = np.where(np.isfinite(random), random, 0.0)
    zeros, noise = pool_bits(np.zeros((200, 8))), pool_bits(random)
    assert zeros.raw == noise.raw == 200 * 8 * 64
    assert zeros.bits < 0.02 * zeros.raw
    assert noise.raw * 0.98 < noise.bits < noise.raw + 8 * 64
    repeated = pool_bits(np.tile(random[:20], (10, 1)))
    assert repeated.bits < 1.3 * pool_bits(random[:20]).bits


def test_the_best_compressor_is_the_one_with_the_fewest_bits():
    found = pool_bits(UrnTask(diversity=64).pool)
    assert found.bits == min(found.by_compressor.values()) == found.by_compressor[found.best]
    assert len(found.by_compressor) == 6
    assert found.to_frame()["bits"].is_monotonic_increasing


def test_code_counts_without_its_documentation():
    assert code_bits(short) < code_bits(longer)
    assert code_bits(documented) == code_bits(short) + 8 * (len("documented") - len("short"))
    memorising, generalising = strategy_bits(np.zeros((4, 8)), longer, short)
    assert memorising == pool_bits(np.zeros((4, 8))).bits + code_bits(longer)
    assert generalising == code_bits(short)


def test_what_has_no_description_is_refused():
    with pytest.raises(ValueError, match="source"):
        code_bits(len)
    with pytest.raises(ValueError, match="pool of shape"):
        pool_bits(np.zeros((0, 8)))
    with pytest.raises(ValueError, match="finite"):
        pool_bits(np.full((2, 8), np.nan))
