"""Prompts whose parts have names: character spans in a text, then token spans in a prompt.

A **role** is a name for a part of a text, such as `prime.verb` or `target.post_verb`. Roles are half-open character
spans of a `RoleText`; `tokenize` carries them over to half-open token spans of a `Prompt` through the tokenizer's own
character offsets. So a role survives words of several tokens, tokens that begin with a space, a BOS token in front, and
different lengths: nobody downstream counts tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Span = tuple[int, int]


@dataclass(frozen=True)
class RoleText:
    """A text with named parts.

    `roles` holds half-open character spans `(start, stop)`: `text[start:stop]` is the part. Roles may overlap or nest
    (`post_verb` holds `theme` and `recipient`). A role that is empty or leaves the text is a ValueError.

    >>> prime = RoleText.of("A doctor ", ("brought", "verb"), " a file to a guest.").under("prime")
    >>> prime.part("prime.verb")
    'brought'
    """

    text: str
    roles: Mapping[str, Span] = field(hash=False)

    def __post_init__(self) -> None:
        """Refuse spans outside the text, and keep a copy of the roles."""
        object.__setattr__(self, "roles", _checked(self.roles, len(self.text), f"the text {self.text!r}"))

    @classmethod
    def of(cls, *parts: str | tuple[str, str]) -> RoleText:
        """Concatenate the parts as they are (no space is added); a `(text, role)` part becomes that role."""
        text, roles = "", dict[str, Span]()
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            words, role = part
            if role in roles:
                raise ValueError(f"the role {role!r} is given twice; give each part of a text its own role")
            roles[role] = (len(text), len(text) + len(words))
            text += words
        return cls(text, roles)

    def part(self, role: str) -> str:
        """The characters of a role."""
        start, stop = _span(self.roles, role)
        return self.text[start:stop]

    def under(self, prefix: str) -> RoleText:
        """The same text with every role `r` renamed to `prefix.r`, and the whole text as role `prefix`."""
        renamed = {f"{prefix}.{role}": span for role, span in self.roles.items()}
        return RoleText(self.text, {prefix: (0, len(self.text)), **renamed})

    def __add__(self, other: RoleText | str) -> RoleText:
        """Concatenation; the roles of `other` move along. A role on both sides is a ValueError: use `under` first."""
        if isinstance(other, str):
            return RoleText(self.text + other, self.roles)
        if not isinstance(other, RoleText):
            return NotImplemented
        shared = sorted(self.roles.keys() & other.roles.keys())
        if shared:
            raise ValueError(f"both texts have the roles {shared}; give each side its own names with .under(prefix)")
        shift = len(self.text)
        moved = {role: (start + shift, stop + shift) for role, (start, stop) in other.roles.items()}
        return RoleText(self.text + other.text, {**self.roles, **moved})

    def __radd__(self, other: str) -> RoleText:
        """A plain string in front."""
        return RoleText(other, {}) + self if isinstance(other, str) else NotImplemented


@dataclass(frozen=True)
class Prompt:
    """Token ids with named roles.

    `roles` holds half-open token spans, never empty: `tokens[start:stop]` are the tokens of the role. A token that
    crosses a border between two roles belongs to both.
    """

    tokens: tuple[int, ...]
    roles: Mapping[str, Span] = field(hash=False)
    text: str | None = None

    def __post_init__(self) -> None:
        """Refuse spans outside the tokens, and keep a copy of the roles."""
        object.__setattr__(self, "roles", _checked(self.roles, len(self.tokens), f"{len(self.tokens)} tokens"))

    def __len__(self) -> int:
        """How many tokens, BOS included."""
        return len(self.tokens)

    def part(self, role: str) -> tuple[int, ...]:
        """The token ids of a role."""
        start, stop = _span(self.roles, role)
        return self.tokens[start:stop]


def tokenize(text: RoleText, tokenizer: Any, *, prepend_bos: bool) -> Prompt:
    """Token ids of a text, with its roles as token spans.

    A token belongs to a role if it holds a character of the role that is not a space. So the space in
    `prime + " " + target` belongs to no role by itself, and a token such as `" target"` belongs to the target alone,
    whether the tokenizer counts the space among the token's characters or not.

    BOS: with `prepend_bos` the id `tokenizer.bos_token_id` comes first, in no role; the tokenizer itself is told to
    add nothing. The choice changes a model's probabilities, so it has no default.

    Errors (ValueError): a tokenizer without character offsets (a slow one); BOS asked for but not defined; a role that
    no token falls in; a tokenizer that adds special tokens though told not to.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"got the tokenizer {type(tokenizer).__name__}, which gives no character offsets; "
            "load a fast one, e.g. AutoTokenizer.from_pretrained(name, use_fast=True)"
        )
    encoded = tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    _refuse_added_tokens(ids, offsets, tokenizer)
    shift = 0
    if prepend_bos:
        if tokenizer.bos_token_id is None:
            raise ValueError("prepend_bos=True, but the tokenizer has no BOS token; set one or pass prepend_bos=False")
        ids, shift = [tokenizer.bos_token_id, *ids], 1
    roles = _token_spans(text, offsets, shift)
    return Prompt(tuple(int(i) for i in ids), roles, text.text)


def _token_spans(text: RoleText, offsets: list[Span], shift: int) -> dict[str, Span]:
    """Character spans to token spans, through the first and the last token of every character that is not a space."""
    first, last = dict[int, int](), dict[int, int]()
    for token, (start, stop) in enumerate(offsets):
        for char in range(start, stop):
            if not text.text[char].isspace():
                first.setdefault(char, token)  # one character can take several byte-level tokens
                last[char] = token
    spans = {}
    for role, (start, stop) in text.roles.items():
        held = [char for char in range(start, stop) if char in last]
        if not held:
            raise ValueError(
                f"no token falls in the role {role!r} ({text.text[start:stop]!r}); "
                "give the role a word that this tokenizer keeps"
            )
        spans[role] = (first[held[0]] + shift, last[held[-1]] + 1 + shift)
    return spans


def _refuse_added_tokens(ids: list[int], offsets: list[Span], tokenizer: Any) -> None:
    """A special token that stands for no character of the text was added by the tokenizer."""
    empty = {i for i, (start, stop) in zip(ids, offsets, strict=True) if start == stop}
    added = sorted(empty.intersection(tokenizer.all_special_ids)) if empty else []
    if added:
        raise ValueError(
            f"the tokenizer adds the special tokens {added} although it was told to add none; "
            "turn this off in the tokenizer (prepend_bos adds BOS where it is wanted)"
        )


def _checked(roles: Mapping[str, Span], length: int, where: str) -> dict[str, Span]:
    for role, (start, stop) in roles.items():
        if not role:
            raise ValueError("got a role with an empty name; expected a name such as 'verb'")
        if not 0 <= start < stop <= length:
            raise ValueError(
                f"the role {role!r} has the span ({start}, {stop}); expected 0 <= start < stop <= {length} in {where}"
            )
    return dict(roles)


def _span(roles: Mapping[str, Span], role: str) -> Span:
    if role not in roles:
        raise ValueError(f"unknown role {role!r}; this text has the roles {sorted(roles)}")
    return roles[role]
