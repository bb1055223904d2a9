"""A language of 51 words with one alternation: who gave what to whom.

PD "Anna gave tea to Ben." and DO "Anna gave Ben tea." say the same thing; the neutral text "Anna gave." has the verb
and neither structure. Every word is one token and so is the period; the token after the verb alone tells the three
apart (a thing, a person, the period), so a model's choice of form is read off at one position. Sentences begin with a
name, which has its capital everywhere: no word has two spellings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.tasks.prompts import RoleText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, PAD, UNKNOWN, PERIOD, TO = "<s>", "<pad>", "<unk>", ".", "to"
PERSONS = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jacob", "Laura", "Martin")
THINGS = ("tea", "bread", "cake", "wine", "rice", "soup", "milk", "fruit", "paper", "money", "wool", "gold")
VERBS = (
    "gave", "sold", "sent", "showed", "lent", "passed", "handed", "brought", "fed", "threw", "offered",
    "mailed", "promised", "paid", "served", "loaned", "tossed", "awarded", "granted", "shipped", "left", "rented",
)  # fmt: skip
VOCABULARY = (BOS, PAD, UNKNOWN, PERIOD, TO, *VERBS, *PERSONS, *THINGS)
TOKEN = {word: i for i, word in enumerate(VOCABULARY)}


def mini_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer with one token a word, `TOKEN` as its ids; a word outside the language becomes `<unk>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(dict(TOKEN), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # splits off punctuation too
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def mini_texts(verb: str, agent: str, thing: str, recipient: str) -> dict[str, RoleText]:
    """The texts PD, DO and neutral of a sentence, with the roles of a dative corpus.

    >>> mini_texts("gave", "Anna", "tea", "Ben")["PD"].text
    'Anna gave tea to Ben.'
    """
    head = RoleText.of((agent, "subject"), " ", (verb, "verb"))
    tails = {
        "PD": RoleText.of((thing, "theme"), " ", (TO, "preposition"), " ", (recipient, "recipient")),
        "DO": RoleText.of((recipient, "recipient"), " ", (thing, "theme")),
    }
    full = {
        form: head + " " + RoleText(tail.text, {"post_verb": (0, len(tail.text)), **tail.roles}) + PERIOD
        for form, tail in tails.items()
    }
    return {**full, "neutral": head + PERIOD}
