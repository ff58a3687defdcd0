"""The recipes: each file is valid, explains itself, and suits its data."""

from dataclasses import replace
from importlib.resources import files

import pytest

import backends
from cnn import data
from cnn.runs import build, recipes
from cnn.runs.config import Config
from cnn.support.errors import ArgumentError

SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
LEFT_TO_THE_DATA = ("model", "epochs", "batch_size", "learning_rate")  # so each recipe says them

each_recipe = pytest.mark.parametrize("name", recipes.NAMES)


def text_of(name):
    return (files("cnn.runs.recipes") / f"{name}.toml").read_text("utf-8")


def test_there_is_a_file_for_each_name():
    found = {path.name for path in files("cnn.runs.recipes").iterdir() if path.name.endswith(".toml")}
    assert found == {f"{name}.toml" for name in recipes.NAMES}


@each_recipe
class TestFile:
    def test_its_settings_are_valid(self, name):
        recipe = recipes.read(name)
        assert recipe.config.recipe == name
        assert set(LEFT_TO_THE_DATA) <= set(recipe.flags)
        assert recipe.flags["data"] in data.NAMES
        build.require_valid(recipe.config)

    def test_its_network_takes_its_images(self, name):
        config = recipes.read(name).config
        network = build.make_network(config, SHAPES[config.data], 10, backends.get("cpu", "portable"))
        build.require_suitable(config, network)
        assert network.output_shape == (10,)

    def test_it_explains_itself(self, name):
        recipe = recipes.read(name)
        for sentence in (recipe.title, recipe.source):
            assert sentence
            assert "\n" not in sentence
        assert len(recipe.title) <= 31  # so that the list of the recipes has room for the figures
        assert any(year in recipe.source for year in map(str, range(1998, 2027)))
        assert text_of(name).startswith("# ")
        assert max(map(len, text_of(name).splitlines())) <= 120

    def test_its_figures_are_all_there_or_none(self, name):
        recipe = recipes.read(name)
        figures = [recipe.accuracy, recipe.spread, recipe.seeds, recipe.minutes, recipe.machine]
        assert all(figures) or not any(figures)
        if recipe.accuracy:
            assert 90 < recipe.accuracy < 100
            assert recipe.seeds >= 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar", "unknown recipe 'cifar': expected one of mnist-fast, .*; did you mean 'cifar10'?"),
        ("MNIST_FAST", "unknown recipe 'MNIST_FAST': .*; did you mean 'mnist-fast'?"),
        ("../recipes/cifar10", "unknown recipe '../recipes/cifar10'"),
        (5, "unknown recipe 5"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name, message):
    with pytest.raises(ArgumentError, match=message):
        recipes.read(name)


class TestTitle:
    def test_of_a_run_without_a_recipe(self):
        assert recipes.title(Config()) == ""

    @each_recipe
    def test_of_a_run_as_the_recipe_says(self, name):
        assert recipes.title(recipes.read(name).config) == name

    def test_names_what_was_changed(self, monkeypatch, tmp_path):
        flags = {"model": "lenet5", "learning_rate": 1, "normalize": True, "augment": ["flip", "shift=2"]}
        recipe = recipes.Recipe("fashion", flags, "Title", "2024")
        monkeypatch.setattr(recipes, "read", {"fashion": recipe}.get)
        allowed = {"device": "cpu", "threads": 1, "seed": 7, "data": "mine"}
        same = replace(recipe.config, learning_rate=1.0, classes=[], **allowed)
        assert recipes.title(same) == "fashion"
        changed = replace(same, epochs=2, normalize=False, augment=[], warmup=0.0, base="runs/a")
        assert recipes.title(changed) == (
            "fashion with --from runs/a --epochs 2 --warmup 0 --augment none --no-normalize"
        )
        assert recipes.title(replace(same, augment=["flip"])) == "fashion with --augment flip"
        runs = replace(same, base=str(tmp_path / "my runs" / "a"), model="/x/mynet.py:make")
        monkeypatch.chdir(tmp_path)
        assert recipes.title(runs) == "fashion with --model /x/mynet.py:make --from 'my runs/a'"

    def test_names_no_setting_that_the_optimizer_lacks(self, monkeypatch):
        flags = {"optimizer": "muon", "learning_rate": 0.1, "optimizer_options": ["steps=3"], "momentum": 0.6}
        recipe = recipes.Recipe("fashion", flags, "Title", "2024")
        monkeypatch.setattr(recipes, "read", {"fashion": recipe}.get)
        config = Config(recipe="fashion", optimizer="adam", learning_rate=0.1, weight_decay=0.0)
        assert recipes.title(config) == "fashion with --optimizer adam"

    def test_of_a_recipe_that_this_version_does_not_have(self):
        assert recipes.title(Config(recipe="imagenet", epochs=2)) == "imagenet"
