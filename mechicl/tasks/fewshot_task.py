"""A few-shot task: texts with labels, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from mechicl.tasks.prompts import RoleText

# "input" is the format of Han et al., arXiv 2305.12766; the others say more, or something else, about what is asked.
TEMPLATES = {
    "review": "Review: {text}\nSentiment: {label}\n\n",
    "input": "Input: {text}\nOutput: {label}\n\n",
    "question": "Q: {text}\nA: {label}\n\n",
    "arrow": "{text} => {label}\n",
    "lines": "{text}\n{label}\n\n",
}


@dataclass(frozen=True, eq=False)  # frames do not compare to one truth value
class FewShotTask:
    r"""Texts with labels, and how they are written.

    frame: columns text and label, one row an example. template: holds `{text}` and, after it, `{label}` once each; what
    follows the label parts one demonstration from the next. label_words: label -> the word that stands for it; by
    default the label itself.

    >>> frame = pd.DataFrame({"text": ["Great fun.", "A bore."], "label": ["pos", "neg"]})
    >>> FewShotTask("films", frame, label_words={"pos": "positive", "neg": "negative"}).example(0).text
    'Review: Great fun.\nSentiment: positive'
    """

    name: str
    frame: pd.DataFrame
    template: str = TEMPLATES["review"]
    label_words: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Refuse what no prompt can be made of (ValueError)."""
        _check_template(self.template)
        _check_frame(self.frame)
        object.__setattr__(self, "frame", self.frame[["text", "label"]].reset_index(drop=True))
        lacking = [label for label in self.labels if label not in self._words]
        if lacking:
            raise ValueError(f"label_words has no word for the label {lacking[0]!r}; give every label a word")
        words = [self._words[label].strip() for label in self.labels]
        if not all(words) or len(set(words)) < len(words):
            raise ValueError(f"got the label words {words}; expected words that differ and are not empty")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order in which they first occur."""
        return tuple(dict.fromkeys(self.frame["label"]))

    @property
    def separator(self) -> str:
        """What stands between two demonstrations."""
        return self.template.partition("{label}")[2]

    def word(self, label: str) -> str:
        """What is written for a label, with the space in front of it where the template has one."""
        between = self.template.partition("{text}")[2].partition("{label}")[0]
        return between[len(between.rstrip(" ")) :] + self._words[label].strip()

    def written(
        self, *, template: str | None = None, label_words: Mapping[str, str] | None = None, name: str | None = None
    ) -> FewShotTask:
        """The same texts and labels, written otherwise: a template (or its name in `TEMPLATES`), words for labels.

        What is not given stays. Rows and labels keep their numbers and names, so that equal seeds draw equal prompts.
        """
        return replace(
            self,
            name=self.name if name is None else name,
            template=self.template if template is None else TEMPLATES.get(template, template),
            label_words=self.label_words if label_words is None else dict(label_words),
        )

    def question(self, row: int, text: str | None = None) -> RoleText:
        """The text of a row, or another one, up to where its label is predicted (no space at the end); role `text`."""
        before, _, rest = self.template.partition("{text}")
        between = rest.partition("{label}")[0].rstrip(" ")
        return RoleText.of(before, (self.frame["text"][row] if text is None else text, "text"), between)

    def example(self, row: int, label: str | None = None, text: str | None = None) -> RoleText:
        """A row with its label and its text, or with others; roles `text` and `label`."""
        word = self.word(self.frame["label"][row] if label is None else label)
        bare = word.lstrip(" ")
        return self.question(row, text) + RoleText.of(word[: len(word) - len(bare)], (bare, "label"))

    @property
    def _words(self) -> Mapping[str, str]:
        return self.label_words if self.label_words is not None else {label: label for label in self.labels}


def _check_template(template: str) -> None:
    if template.count("{text}") != 1 or template.count("{label}") != 1:
        raise ValueError(f"got the template {template!r}; expected {{text}} and {{label}} once each")
    if template.index("{text}") > template.index("{label}"):
        raise ValueError(f"got the template {template!r}; expected {{label}} after {{text}}, for it is to be predicted")
    if not template.partition("{label}")[2].isspace():
        raise ValueError(f"got the template {template!r}; expected a line break or another space after {{label}}")


def _check_frame(frame: pd.DataFrame) -> None:
    lacking = [column for column in ("text", "label") if column not in frame]
    if lacking:
        raise ValueError(f"the frame has no column {lacking[0]!r}; it has {list(frame.columns)}")
    unlabelled = frame.index[frame["label"].isna()].tolist()
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} rows have no label, the first is row {unlabelled[0]}; drop or label them")
    if not frame["label"].map(lambda label: isinstance(label, str)).all():
        raise ValueError("labels must be texts; convert them with frame['label'].map({0: 'negative', ...})")
    empty = frame.index[~frame["text"].map(lambda text: isinstance(text, str) and bool(text.strip()))].tolist()
    if empty:
        raise ValueError(f"{len(empty)} rows have no text, the first is row {empty[0]}; drop them")
    if frame["label"].nunique() < 2:
        raise ValueError(f"the frame has the labels {frame['label'].unique().tolist()}; expected at least two")
