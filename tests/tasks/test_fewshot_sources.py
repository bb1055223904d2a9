"""Few-shot tasks by name: embedded, from files, from Hugging Face datasets without a network; and what is refused."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.tasks.facts import sentiment_task
from mechicl.tasks.fewshot import fewshot_prompts
from mechicl.tasks.fewshot_sources import load_task
from mechicl.tasks.fewshot_task import TEMPLATES, FewShotTask
from mechicl.tasks.rules import ANIMALS, TOOLS, rule_task


@pytest.mark.parametrize("name", ["sentiment", "capitals", "rule", "rule order"])
def test_embedded_tasks_by_name(name: str, tiny_tokenizer: Any) -> None:
    task = load_task(name)
    assert task.name == name and len(task.labels) >= 2
    assert len(fewshot_prompts(task, 2, 2, tokenizer=tiny_tokenizer, seed=0, n_candidates=2)) == 2
    assert load_task(name, template="arrow").template == "{text} => {label}\n"


def test_a_csv_file_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text(
        'n,review,verdict\n1,"Dull, and long.",0\n2,Fine.,1\n3,"So ""good"".",1\n4,NA,0\n', encoding="utf-8"
    )
    task = load_task(path, text="review", label="verdict", label_words={"0": "bad", "1": "good"})
    assert task.frame["text"].tolist() == ["Dull, and long.", "Fine.", 'So "good".', "NA"]
    assert task.frame["label"].tolist() == ["0", "1", "1", "0"] and task.name == "films"
    assert task.example(0).text == "Input: Dull, and long.\nOutput: bad"


def test_a_tsv_file_has_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "lines.tsv"
    path.write_text('text\tlabel\n"Half a quote\ta\nNo quote\tb\n', encoding="utf-8")
    assert load_task(path).frame["text"].tolist() == ['"Half a quote', "No quote"]


def test_labels_by_the_sign_of_a_score(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("text,score\na,1.6\nb,-1.6\nc,1.5\nd,-1.5\ne,0\nf,3\n", encoding="utf-8")
    task = load_task(path, score="score", threshold=1.5, signs=("low", "high"))
    assert list(zip(task.frame["text"], task.frame["label"], strict=True)) == [
        ("a", "high"),
        ("b", "low"),
        ("f", "high"),
    ]
    assert load_task(path, score="score").frame["label"].tolist().count("negative") == 2


def test_the_real_reviews(data_folder: Path, tiny_tokenizer: Any) -> None:
    path = data_folder / "movie_reviews.tsv"
    if not path.is_file():
        pytest.skip("the file of reviews is absent")
    task = load_task(path, score="score", threshold=1.5, template="review")
    table = pd.read_csv(path, sep="\t", quoting=3)
    strong = table[table["score"].abs() > 1.5]
    assert task.frame["text"].tolist() == strong["text"].tolist()
    assert ((task.frame["label"] == "positive").to_numpy() == (strong["score"] > 0).to_numpy()).all()
    (one,) = fewshot_prompts(task, 4, 1, tokenizer=tiny_tokenizer, seed=0, demonstrations="similar", balanced=False)
    shared = [len(_words(one.query_text) & _words(text)) for text in one.demo_texts]
    assert min(shared) >= 1


def _words(text: str) -> set[str]:
    return set(text.lower().split())


def fake_datasets(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[Any]:
    """A module `datasets` that gives a table, or raises; returns what it was asked for."""
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> Any:
        asked.append((names, options))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


class Table(dict[str, list[Any]]):
    """As much of a dataset as is read."""

    features: dict[str, Any]

    @property
    def column_names(self) -> list[str]:
        return list(self)


def table(labels: list[Any], names: list[str] | None) -> Table:
    made = Table(sentence=[f"text {i}" for i in range(len(labels))], label=labels)
    made.features = {"sentence": object(), "label": SimpleNamespace(names=names) if names else object()}
    return made


def test_a_dataset_whose_labels_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_datasets(monkeypatch, table([1, 0, 1], ["no", "yes"]))
    task = load_task("some/answers", text="sentence", subset="small", split="test[:3]")
    assert asked == [(("some/answers", "small"), {"split": "test[:3]"})]
    assert task.frame["label"].tolist() == ["yes", "no", "yes"] and task.name == "answers"


def test_a_dataset_whose_labels_are_numbers_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_datasets(monkeypatch, table([3, 5], None))
    assert load_task("numbers", text="sentence").labels == ("3", "5")
    fake_datasets(monkeypatch, table([0, 1, -1], ["no", "yes"]))
    with pytest.raises(ValueError, match="1 rows have no label, the first is row 2"):
        load_task("hidden/labels", text="sentence")


def test_a_dataset_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["low", "high"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    (tmp_path / "ranks").mkdir()
    made.to_parquet(tmp_path / "ranks" / "train-0.parquet")
    task = load_task(str(tmp_path / "ranks"))
    assert task.frame["label"].tolist() == ["high", "low", "high"] and task.name == "ranks"


def test_no_package_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_datasets(monkeypatch, ConnectionError("Couldn't reach the Hub.\nand more"))
    with pytest.raises(ValueError, match=r"'sst/two' .* could not be loaded: Couldn't reach the Hub. Check the names"):
        load_task("sst/two")
    with pytest.raises(ValueError, match="Did you mean 'sentiment'"):
        load_task("sentimant")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="the package is missing: pip install datasets"):
        load_task("sst/two")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\nx,a\ny,\n", {}, "1 rows have no label, the first is row 1"),
        ("text,label\nx,a\n,b\n", {}, "1 rows have no text, the first is row 1"),
        ("text,label\nx,a\ny,a\n", {}, "expected at least two"),
        ("text,label\nx,a\ny,b\n", {"label": "verdict"}, r"no column 'verdict'; it has \['text', 'label'\]"),
        ("text,label\nx,a\ny,b\n", {"score": "points"}, "no column 'points'"),
        ("text,score\nx,1\ny,high\n", {"score": "score"}, "the score of row 1 is 'high'; expected a number"),
        ("text,score\nx,1\ny,\n", {"score": "score"}, "1 rows have no score, the first is row 1"),
        ("text,score\nx,1\ny,-1\n", {"score": "score", "threshold": 2.0}, "no score is above 2.0 or below -2.0"),
        ("text,score\nx,1\ny,-1\n", {"score": "score", "threshold": -1.0}, "threshold=-1.0"),
        ("text,label\nx,a\ny,b\n", {"template": "{text}"}, "once each"),
        ("", {}, "cannot be read as a table"),
    ],
)
def test_files_that_make_no_task(content: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_task(path, **options)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        load_task(tmp_path / "none.tsv")


def test_the_rule_decides_the_label() -> None:
    kinds = rule_task(n_rows=100, seed=3)
    held = [{"animal" if set(text.split(", ")) & set(ANIMALS) else "tool"} for text in kinds.frame["text"]]
    pairs = Counter((label, *kind) for label, kind in zip(kinds.frame["label"], held, strict=True))
    assert sorted(pairs.values()) == [50, 50] and len({label for label, _ in pairs}) == 2
    orders = rule_task("order", n_rows=100, seed=3)
    first = [
        next(word in ANIMALS for word in text.split(", ") if word in ANIMALS + TOOLS) for text in orders.frame["text"]
    ]
    assert sorted(Counter(zip(orders.frame["label"], first, strict=True)).values()) == [50, 50]
    assert kinds.frame["text"].is_unique and kinds.frame["text"].str.count(",").eq(3).all()


def test_the_seed_decides_the_rule_task() -> None:
    one, same, other = (rule_task(n_rows=40, seed=seed).frame for seed in (1, 1, 2))
    assert one.equals(same) and not one.equals(other)
    # over seeds either label stands for either kind
    stands = {rule_task(n_rows=2, seed=seed).frame["label"][0] for seed in range(20)}
    assert len(stands) > 4


@pytest.mark.parametrize(("options", "message"), [({"rule": "sum"}, "kind, order"), ({"n_rows": 3}, "even number")])
def test_rules_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule_task(**options)


def test_the_same_task_written_otherwise(tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    other = task.written(template="input", label_words={"positive": "Positive", "negative": "Negative"})
    assert other.template == TEMPLATES["input"] and other.labels == task.labels and other.name == task.name
    assert other.example(0).text == f"Input: {task.frame['text'][0]}\nOutput: Positive"
    assert task.written().example(0) == task.example(0)
    before, after = (fewshot_prompts(x, 3, 4, tokenizer=tiny_tokenizer, seed=0) for x in (task, other))
    for one, two in zip(before, after, strict=True):
        assert (one.query, one.demos, one.demo_labels, one.labels) == (
            two.query,
            two.demos,
            two.demo_labels,
            two.labels,
        )
    with pytest.raises(ValueError, match="no word for the label 'negative'"):
        task.written(label_words={"positive": "yes"})


def test_no_bag_of_words_knows_an_order() -> None:
    """Whether the nearest row has the same label: chance under "order", where words say nothing; not under "kind"."""
    from mechicl.tasks.similarity import WordOverlap

    found = {}
    for rule in ("kind", "order"):
        frame: pd.DataFrame = rule_task(rule, 400, seed=0).frame
        texts, labels = frame["text"].tolist(), frame["label"].to_numpy()
        cosines = WordOverlap(texts).cosines(texts, texts)
        np.fill_diagonal(cosines, -1)
        found[rule] = float((labels[cosines.argmax(1)] == labels).mean())
    assert found["kind"] > 0.75 and abs(found["order"] - 0.5) < 0.1


def test_every_template_makes_a_task() -> None:
    for template in TEMPLATES.values():
        assert FewShotTask("x", sentiment_task().frame, template=template).labels == ("positive", "negative")
