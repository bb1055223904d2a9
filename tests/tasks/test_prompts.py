"""Named parts of texts, and their way into tokens."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mechicl.tasks.prompts import Prompt, RoleText, tokenize

PRIME = RoleText.of(
    ("A doctor", "subject"), " ", ("brought", "verb"), " ", ("a xylophone to a guest", "post_verb"), "."
)
TARGET = RoleText.of(("The émigré", "subject"), " ", ("gave", "verb"), " ", ("the girl the file", "post_verb"), ".")
BOTH = PRIME.under("prime") + " " + TARGET.under("target")
SENTENCES = [
    "A doctor brought a file to a guest.",
    "The girl gave the guest the file.",
    "A guest gave a girl the file.",
]


def word_level() -> PreTrainedTokenizerFast:
    """Offsets without the space; words it does not know are one [UNK]."""
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[UNK]", "<s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="[UNK]")


def byte_level(*, trim_offsets: bool) -> PreTrainedTokenizerFast:
    """Tokens begin with their space; its place is in the offsets unless they are trimmed. Unknown words are cut up."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def metaspace() -> PreTrainedTokenizerFast:
    """A space is a visible mark in front of the word, and one is put before the text, as Llama-2 has it."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["[UNK]", "<s>"], show_progress=False)
    backend.train_from_iterator([*SENTENCES, "xylophone émigré"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="[UNK]")


TOKENIZERS = {
    "word level": word_level(),
    "byte level": byte_level(trim_offsets=True),
    "byte level with the space": byte_level(trim_offsets=False),
    "metaspace": metaspace(),
}


@pytest.fixture(params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


def test_parts_are_named_where_they_stand():
    assert PRIME.text == "A doctor brought a xylophone to a guest."
    assert {role: PRIME.text[a:b] for role, (a, b) in PRIME.roles.items()} == {
        "subject": "A doctor",
        "verb": "brought",
        "post_verb": "a xylophone to a guest",
    }
    assert PRIME.part("verb") == "brought"


def test_concatenation_moves_roles_along():
    assert BOTH.text == PRIME.text + " " + TARGET.text
    assert BOTH.part("prime") == PRIME.text
    assert BOTH.part("target") == TARGET.text
    assert BOTH.part("prime.verb") == "brought"
    assert BOTH.part("target.post_verb") == "the girl the file"
    assert ("Read: " + TARGET).part("verb") == "gave"


def test_equal_texts_are_equal_and_hash_alike():
    again = RoleText(PRIME.text, dict(reversed(PRIME.roles.items())))
    assert again == PRIME
    assert hash(again) == hash(PRIME)
    assert RoleText(PRIME.text, {}) != PRIME


def test_roles_are_copied():
    roles = {"all": (0, 2)}
    text = RoleText("ab", roles)
    roles["all"] = (0, 1)
    assert text.part("all") == "ab"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RoleText("abc", {"x": (0, 4)}), r"'x' has the span \(0, 4\)"),
        (lambda: RoleText("abc", {"x": (2, 2)}), "start < stop"),
        (lambda: RoleText("abc", {"x": (-1, 2)}), "0 <= start"),
        (lambda: RoleText("abc", {"": (0, 2)}), "empty name"),
        (lambda: RoleText.of(("", "x"), "abc"), "'x'"),
        (lambda: RoleText.of(("a", "x"), ("b", "x")), "given twice"),
        (lambda: PRIME + TARGET, r"\.under"),
        (lambda: PRIME.part("object"), "unknown role 'object'.*post_verb"),
        (lambda: Prompt((1, 2), {"x": (1, 3)}), "2 tokens"),
    ],
)
def test_impossible_roles_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_role_tokens_decode_to_the_role(tokenizer):
    prompt = tokenize(BOTH, tokenizer, prepend_bos=True)
    for role, (start, stop) in BOTH.roles.items():
        read = tokenizer.decode(prompt.part(role)).replace(" ", "")
        if "[UNK]" not in read:  # the word-level tokenizer does not know every word
            assert read == BOTH.text[start:stop].replace(" ", ""), role
    assert "brought" in tokenizer.decode(prompt.part("prime.verb"))


def test_role_tokens_are_those_that_hold_a_character_of_it(tokenizer):
    """Against the definition, read off token by token."""
    prompt = tokenize(BOTH, tokenizer, prepend_bos=False)
    offsets = tokenizer(BOTH.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for role, (start, stop) in BOTH.roles.items():
        holds = [
            i
            for i, (a, b) in enumerate(offsets)
            if any(start <= c < stop and not BOTH.text[c].isspace() for c in range(a, b))
        ]
        first, last = prompt.roles[role]
        assert set(holds) <= set(range(first, last))
        assert (holds[0], holds[-1]) == (first, last - 1)


def test_the_space_between_sentences_belongs_to_nobody_else(tokenizer):
    prompt = tokenize(BOTH, tokenizer, prepend_bos=False)
    assert prompt.roles["prime"][1] <= prompt.roles["target"][0]
    between = prompt.tokens[prompt.roles["prime"][1] : prompt.roles["target"][0]]
    assert tokenizer.decode(between).strip() == ""


def test_words_of_several_tokens_keep_all_of_them():
    tokenizer = TOKENIZERS["byte level"]
    prompt = tokenize(RoleText.of("A ", ("xylophone", "theme"), "."), tokenizer, prepend_bos=False)
    assert len(prompt.part("theme")) > 2
    assert tokenizer.decode(prompt.part("theme")).strip() == "xylophone"


def test_one_character_of_several_tokens():
    tokenizer = TOKENIZERS["byte level"]
    prompt = tokenize(RoleText.of("A ", ("🦊", "theme"), ("!", "end")), tokenizer, prepend_bos=False)
    assert len(prompt.part("theme")) > 1
    assert tokenizer.decode(prompt.part("theme")).strip() == "🦊"
    assert prompt.roles["end"] == (len(prompt) - 1, len(prompt))


def test_bos_moves_roles_by_one_and_belongs_to_none(tokenizer):
    without = tokenize(BOTH, tokenizer, prepend_bos=False)
    prompt = tokenize(BOTH, tokenizer, prepend_bos=True)
    assert prompt.tokens == (tokenizer.bos_token_id, *without.tokens)
    assert prompt.roles == {role: (start + 1, stop + 1) for role, (start, stop) in without.roles.items()}
    assert without.text == prompt.text == BOTH.text


def test_special_tokens_that_the_tokenizer_would_add_are_not_there():
    tokenizer = word_level()
    plain = tokenize(PRIME, tokenizer, prepend_bos=False)
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    assert tokenizer(PRIME.text)["input_ids"][0] == tokenizer.bos_token_id
    assert tokenize(PRIME, tokenizer, prepend_bos=False) == plain


class Stubborn:
    """Adds BOS whatever it is told."""

    is_fast, bos_token_id, all_special_ids = True, 7, [7]

    def __call__(self, text, **_):
        return {"input_ids": [7, 1], "offset_mapping": [(0, 0), (0, len(text))]}


class Slow(Stubborn):
    is_fast = False


def test_a_tokenizer_that_adds_bos_anyway_is_refused():
    with pytest.raises(ValueError, match=r"adds the special tokens \[7\]"):
        tokenize(PRIME, Stubborn(), prepend_bos=True)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match=r"Slow.*no character offsets.*use_fast=True"):
        tokenize(PRIME, Slow(), prepend_bos=False)


def test_a_missing_bos_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_level().backend_tokenizer, unk_token="[UNK]")
    with pytest.raises(ValueError, match="no BOS token"):
        tokenize(PRIME, tokenizer, prepend_bos=True)
    assert len(tokenize(PRIME, tokenizer, prepend_bos=False)) == 9


def test_a_role_without_a_token_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no token falls in the role 'gap'"):
        tokenize(RoleText.of("A", (" ", "gap"), "guest"), tokenizer, prepend_bos=False)
