"""The pictures of accounts that a report shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.analyses.pages.section import Drawing
from mechicl.analyses.rivals.report_words import titled

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable


def shares_drawing(found: AccountTable, slug: str) -> Drawing:
    """Shares of all accounts."""
    caption = (
        f"{titled(found)}: each account's share of what the model's answers owe to their context, with "
        f"{found.level:.0%} intervals. Filled: not told apart from the nearest. An arrow: worse than the picture shows."
    )
    height = 1.7 + 0.3 * len(found.frame)
    return Drawing(f"{slug}_shares", caption, (7.0, height), lambda ax: found.plot(ax=ax))


def account_drawings(found: AccountTable, slug: str) -> list[Drawing]:
    """Shares over the length of context, where there are several, and what these contexts tell apart."""
    drawings = []
    if found.by_length["length"].nunique() > 1:
        words = (
            "The share of each family's nearest account over the number of demonstrations, the same fitted numbers at "
            "all of them."
        )
        drawings.append(Drawing(f"{slug}_lengths", words, (6.0, 4.0), lambda ax: found.plot_lengths(ax=ax)))
    if found.has_room:
        n = len(found.frame)
        words = (
            "What these contexts can tell apart, whatever the model does: the distance between two accounts as a share "
            "of the room. Dark cells off the diagonal are accounts that predict nearly the same here."
        )
        size = (1.9 + 0.55 * n, 1.7 + 0.45 * n)
        drawings.append(Drawing(f"{slug}_apart", words, size, lambda ax: found.plot_apart(ax=ax)))
    return drawings
