"""The shipped classifiers: small, documented, and on contexts nobody has seen what their cards say."""

from functools import cache

import pytest

from mechicl.organisms.classification_judging import attention_fit, judge_on
from mechicl.organisms.classification_recipes import CLASSIFIER_RECIPES, find_classifier
from mechicl.organisms.classifiers import (
    CLASSIFIERS,
    classifier_card,
    classifier_folder,
    load_classifier,
    new_classifier,
)
from mechicl.predictors.classification import generalising_weights


@cache
def fresh(name, n=3000):
    """What a card says, on contexts of a step that neither it nor training has."""
    task = CLASSIFIER_RECIPES[name].task
    return judge_on(load_classifier(name), task, task.sample(n, step=424_242_424))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_is_small_and_documented(name):
    folder, card = classifier_folder(name), classifier_card(name)
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "card.json"}
    assert (card["name"], card["description"]) == (name, CLASSIFIERS[name])
    assert card["steps"] == CLASSIFIER_RECIPES[name].steps
    assert card["recipe"]["task"]["diversity"] == CLASSIFIER_RECIPES[name].task.diversity
    assert card["n_params"] == sum(p.numel() for p in load_classifier(name).parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_card_tells_what_it_does(name):
    """Numbers of other contexts are in reach of the card's, by both intervals."""
    card, found = classifier_card(name), fresh(name)
    pairs = [(card["distance"][key], found["distance"][key]) for key in card["distance"]]
    pairs += [(card["attention"][key], found["attention"][key]) for key in ("slope", "r2", "to_itself")]
    pairs += [(card["accuracy"]["model"][key], found["accuracy"]["model"][key]) for key in card["accuracy"]["model"]]
    for told, measured in pairs:
        assert measured[1] - (told[2] - told[1]) < told[0] < measured[2] + (told[2] - told[1])


def test_one_compares_and_the_other_knows_its_items():
    general, memory = (classifier_card(name) for name in ("classifier-general", "classifier-memory"))
    assert general["distance"]["relative"][2] < 0.2
    assert memory["distance"]["relative"][1] > 0.8
    assert max(general["distance"]["residual"][2], memory["distance"]["residual"][2]) < 0.25
    unseen = [card["unseen_items"]["model"]["accuracy"] for card in (general, memory)]
    assert unseen[0][1] > 0.75 > 0.65 > unseen[1][2]
    assert general["attention"]["r2"][1] > 0.7 > 0.5 > memory["attention"]["r2"][2]
    for card in (general, memory):
        losses = {key: row["cross_entropy"][0] for key, row in card["accuracy"].items()}
        assert losses["model"] < losses["guess"]


def test_an_untrained_one_is_near_neither_and_attends_to_nothing_in_particular():
    recipe = CLASSIFIER_RECIPES["classifier-general"]
    found = judge_on(new_classifier(recipe), recipe.task, recipe.task.sample(1500, step=5))
    assert found["distance"]["residual"][1] > 0.5
    assert found["attention"]["r2"][2] < 0.1
    assert found["accuracy"]["model"]["accuracy"][0] == pytest.approx(0.5, abs=0.06)


def test_attention_that_is_the_kernel_is_found_to_be(monkeypatch):
    recipe = CLASSIFIER_RECIPES["classifier-general"]
    c, model = recipe.task.sample(200, step=5), new_classifier(recipe)
    monkeypatch.setattr(model, "query_attention", lambda x, y, at: 0.03 * generalising_weights(at, x)[:, None] ** 0.5)
    found = attention_fit(model, c, 0.5)
    assert found["slope"] == pytest.approx([0.5] * 3, abs=1e-5)
    assert found["r2"] == pytest.approx([1.0] * 3, abs=1e-5)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'classifier-memory'"):
        find_classifier("clasifier-memory")
    with pytest.raises(ValueError, match="there are classifier-general, classifier-memory"):
        load_classifier("zzz")
    with pytest.raises(ValueError, match="'float16'; expected 'float32' or 'float64'"):
        load_classifier("classifier-memory", dtype="float16")
