"""The words of the generated dative sentences: 22 verbs, what each of them can be done with, and who does it to whom.

The verbs are the 22 of arXiv 2406.18501. Every verb goes with one preposition (*to* or *for*) in the prepositional
form, and with a few groups of themes that make plausible sentences: one feeds fruit, draws pictures, throws balls.
Groups are disjoint, so that a corpus can split each group in two and give every verb themes on both sides. Nouns are
common count nouns, which most tokenizers keep whole.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DativeVerb:
    """A verb with its past tense, the preposition of its prepositional form, and the groups of themes it goes with."""

    lemma: str
    past: str
    preposition: str
    themes: tuple[str, ...]


def _verb(lemma: str, past: str, preposition: str, themes: str) -> DativeVerb:
    return DativeVerb(lemma, past, preposition, tuple(themes.split()))


VERBS: dict[str, DativeVerb] = {
    verb.lemma: verb
    for verb in (
        _verb("bring", "brought", "to", "dish drink document tool"),
        _verb("give", "gave", "to", "fruit document gift tool clothing"),
        _verb("sell", "sold", "to", "gift clothing furniture vehicle"),
        _verb("send", "sent", "to", "document gift"),
        _verb("show", "showed", "to", "document gift picture vehicle"),
        _verb("supply", "supplied", "to", "tool furniture vehicle"),
        _verb("take", "took", "to", "dish drink document tool"),
        _verb("feed", "fed", "to", "fruit dish"),
        _verb("throw", "threw", "to", "missile fruit"),
        _verb("promise", "promised", "to", "gift vehicle pet"),
        _verb("draw", "drew", "for", "picture pet prey"),
        _verb("find", "found", "for", "document tool clothing furniture"),
        _verb("get", "got", "for", "dish drink tool clothing"),
        _verb("keep", "kept", "for", "dish drink document gift"),
        _verb("leave", "left", "for", "dish drink document tool"),
        _verb("make", "made", "for", "dish clothing furniture"),
        _verb("purchase", "purchased", "for", "gift clothing furniture vehicle"),
        _verb("save", "saved", "for", "dish drink fruit"),
        _verb("design", "designed", "for", "project clothing furniture"),
        _verb("buy", "bought", "for", "drink gift clothing vehicle"),
        _verb("catch", "caught", "for", "prey"),
        _verb("deliver", "delivered", "for", "dish document furniture"),
    )
}

THEMES: dict[str, tuple[str, ...]] = {
    group: tuple(words.split())
    for group, words in {
        "fruit": "apple banana orange carrot potato tomato lemon peach egg pear",
        "dish": "sandwich steak pie cake salad pizza meal snack cookie dessert",
        "drink": "drink beer coffee soda juice tea",
        "document": "letter card file note report book magazine map photo ticket document message",
        "gift": "ring watch toy doll guitar camera phone medal diamond puzzle flower present",
        "tool": "hammer knife ladder bucket brush blanket pen pencil basket box bottle key",
        "clothing": "coat dress hat shirt robe suit jacket vest belt skirt costume uniform",
        "furniture": "chair table lamp desk couch bed mirror carpet clock shelf",
        "vehicle": "car bike boat truck van motorcycle tractor bicycle",
        "picture": "picture portrait cartoon sketch diagram chart tree castle circle heart",
        "pet": "puppy kitten pony horse parrot",
        "prey": "fish rabbit bird duck crab frog lobster butterfly snake mouse",
        "missile": "ball coin stone stick bone rope towel bag pillow brick",
        "project": "house garden logo poster website kitchen robot game bridge tower",
    }.items()
}

_PEOPLE = """
    doctor nurse teacher student lawyer judge farmer soldier king queen prince princess actor artist author writer poet
    singer dancer driver pilot sailor captain chef witness baker guard officer engineer scientist professor manager boss
    secretary clerk scholar priest monk coach player runner boy girl man woman child father mother brother sister uncle
    aunt cousin husband wife friend guest visitor stranger tourist client customer patient hunter servant painter editor
    reporter journalist mayor president minister senator knight detective musician
"""
PEOPLE: tuple[str, ...] = tuple(_PEOPLE.split())

PRONOUNS: tuple[str, ...] = ("me", "you", "us", "him", "them", "her", "it")

_VOWEL_LETTER_CONSONANT_SOUND = ("uniform", "unicorn", "union", "university", "european", "user", "one")


def indefinite(noun: str) -> str:
    """The indefinite article by sound: "an actor", but "a uniform"."""
    return "an" if noun[0] in "aeiou" and noun not in _VOWEL_LETTER_CONSONANT_SOUND else "a"


def find_verb(name: str) -> DativeVerb:
    """A verb by its lemma or its past tense; a ValueError that lists the known ones for any other word."""
    for verb in VERBS.values():
        if name in (verb.lemma, verb.past):
            return verb
    raise ValueError(f"unknown dative verb {name!r}; known are {', '.join(VERBS)}")
