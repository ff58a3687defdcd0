"""``cnn train --recipe``: settings from a recipe, and the list of the recipes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.small_cifar10 import FOLDER, archive, contents, members
from helpers.small_files import NAMES, idx, write

from cnn.runs import recipes

ROOT = Path(recipes.__file__).parent
OF_SGD = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.8, "nesterov": True}
OF_SGD |= {"weight_decay": 0.001, "bias_rate": 64}
OF_ADAM = {"optimizer": "adam", "learning_rate": 0.001, "momentum": None, "nesterov": False}
OF_ADAM |= {"weight_decay": 0, "bias_rate": 1}
QUICK = ("--epochs", 1, "--device", "cpu", "--no-report", "--out", "run")


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """{data set: a folder with files in its format}."""
    folder = tmp_path_factory.mktemp("small")
    random = np.random.default_rng(0)
    for name, count in zip(NAMES, (20, 20, 10, 10), strict=True):
        images = random.integers(0, 256, (count, 28, 28))
        (folder / name).write_bytes(idx(images if "images" in name else np.arange(count) % 10))
    colour = tmp_path_factory.mktemp("small") / FOLDER
    colour.mkdir()
    for name, data in contents().items():
        (colour / name).write_bytes(data)
    return {"mnist": folder, "fashion-mnist": folder, "cifar10": colour}


@pytest.fixture
def train(command, small_data, tmp_path):
    """``train(name, ...)`` trains by a recipe on small data -> (config.json, standard error)."""

    def train(name, *flags):
        data = small_data[recipes.read(name).flags["data"]]
        code, _, err = command("train", "--recipe", name, "--data", data, *QUICK, *flags)
        assert code == 0, err
        return json.loads(Path("run/config.json").read_text()), err

    return train


@pytest.fixture
def fixed(monkeypatch):
    """The recipe mnist-best with settings that stay the same when the real ones are tuned."""
    flags = {"data": "mnist", "model": "lenet5", "epochs": 3, "batch_size": 10, "optimizer": "adamw"}
    flags |= {"learning_rate": 0.003, "augment": ["shift=2"], "tta": "mirror", "normalize": True}
    recipe = recipes.Recipe("mnist-best", flags, "Title", "2024")
    monkeypatch.setattr(recipes, "read", {"mnist-best": recipe}.get)


@pytest.fixture
def listed(monkeypatch):
    """``listed(recipe, ...)`` replaces the recipes."""

    def listed(*found):
        by_name = {recipe.name: recipe for recipe in found}
        monkeypatch.setattr(recipes, "NAMES", tuple(by_name))
        monkeypatch.setattr(recipes, "read", by_name.get)

    return listed


class TestTraining:
    @pytest.mark.parametrize("name", recipes.NAMES)
    def test_the_settings_are_those_of_the_recipe(self, train, name, monkeypatch):
        monkeypatch.setattr("cnn.runs.report.evaluation.time_layers", lambda *_: [])  # takes longest
        config, err = train(name, "--batch-size", 4, "--per-class", 1)
        assert config["recipe"] == name
        flags = recipes.read(name).flags
        changed = {"data", "epochs", "batch_size"}
        assert {key: config[key] for key in flags if key not in changed} == {
            key: value for key, value in flags.items() if key not in changed
        }
        assert f"recipe {name} with " in err
        assert f"--batch-size 4: {flags['model']} on " in err

    def test_options_win(self, fixed, train):
        flags = ("--no-normalize", "--augment", "none", "--tta", "none", "--model", "notebook")
        config, err = train("mnist-best", *flags)
        assert (config["normalize"], config["augment"], config["tta"]) == (False, [], "none")
        assert (config["model"], config["optimizer"]) == ("notebook", "adamw")
        assert err.startswith(
            "recipe mnist-best with --model notebook --epochs 1 --augment none --tta none --no-normalize: "
        )

    def test_another_optimizer_has_its_own_settings(self, fixed, train):
        recipes.read("mnist-best").flags.update(OF_SGD)
        config, _ = train("mnist-best", "--optimizer", "adam")
        assert {name: config[name] for name in OF_SGD} == OF_ADAM

    def test_what_is_given_with_another_optimizer_holds(self, fixed, train):
        recipes.read("mnist-best").flags.update(OF_SGD)
        config, _ = train("mnist-best", "--optimizer", "adam", "--learning-rate", 0.002, "--bias-rate", 3)
        assert {name: config[name] for name in OF_SGD} == OF_ADAM | {"learning_rate": 0.002, "bias_rate": 3}

    def test_the_same_optimizer_keeps_the_settings(self, fixed, train):
        recipes.read("mnist-best").flags.update(OF_SGD)
        config, _ = train("mnist-best", "--optimizer", "sgd")
        assert {name: config[name] for name in OF_SGD} == OF_SGD

    def test_a_run_can_be_repeated_from_its_folder(self, train, command):
        config, _ = train("mnist-fast", "--augment", "none")
        code, _, err = command("train", "--config", "run", "--out", "again", "--no-report")
        assert code == 0, err
        assert json.loads(Path("again/config.json").read_text()) == config
        assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()

    def test_it_resumes_but_not_with_another_recipe(self, train, command):
        train("mnist-fast")
        code, _, err = command("train", "--resume", "run", "--epochs", 2, "--no-report")
        assert code == 0, err
        assert err.startswith("recipe mnist-fast")
        code, _, err = command("train", "--resume", "run", "--recipe", "mnist-best")
        assert code == 2
        assert err.startswith("error: --recipe cannot be given with --resume: ")

    def test_from_a_base_which_keeps_its_network_and_its_preprocessing(
        self, fixed, train, command, small_data
    ):
        train("mnist-best", "--model", "notebook", "--no-normalize")
        flags = ("--from", "run", "--data", small_data["mnist"], "--epochs", 1, "--no-report")
        code, _, err = command("train", "--recipe", "mnist-best", *flags, "--out", "new")
        assert code == 0, err
        config = json.loads(Path("new/config.json").read_text())
        assert (config["model"], config["normalize"], config["optimizer"]) == ("notebook", False, "adamw")
        code, _, err = command("train", "--recipe", "mnist-best", *flags, "--model", "lenet5")
        assert code == 2
        assert "leave --model out" in err

    def test_other_data_decide_the_classes_and_the_shape(self, command, own_data):
        code, _, err = command("train", "--recipe", "mnist-fast", "--data", own_data, *QUICK)
        assert code == 0, err
        config = json.loads(Path("run/config.json").read_text())
        assert (config["class_names"], config["input_shape"]) == (["dark", "bright"], [1, 20, 20])

    def test_images_that_are_too_small_for_the_network(self, command, tmp_path):
        images, labels = np.zeros((20, 6, 6), np.uint8), np.arange(20) % 2
        np.savez("tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        code, out, err = command("train", "--recipe", "cifar10", "--data", "tiny.npz", *QUICK)
        assert (code, out) == (2, "")
        assert err.startswith("error: the model ")
        assert " cannot take images of 1x6x6: layer " in err
        assert err.count("\n") == 1
        assert not Path("run").exists()

    @pytest.mark.parametrize("shape", ["folder", "parent", "archive", "folder of the archive", "both"])
    def test_cifar10_as_people_have_it(self, command, small_data, tmp_path, shape):
        if shape != "folder":
            (tmp_path / "data").mkdir()
        if shape in ("parent", "both"):
            shutil.copytree(small_data["cifar10"], tmp_path / "data" / FOLDER)
        if "archive" in shape or shape == "both":
            (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(archive(members()))
        path = {"folder": small_data["cifar10"], "archive": "data/cifar-10-binary.tar.gz"}.get(shape, "data")
        code, out, err = command("train", "--recipe", "cifar10", "--data", path, "--dry-run")
        assert code == 0, err
        assert out.startswith("recipe cifar10: ")
        assert " on 11 images of " in out

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("separator", ["-", "."])
    def test_idx_files_as_people_have_them(self, command, small_data, tmp_path, separator, suffix):
        (tmp_path / "data").mkdir()
        for name in NAMES:
            new = name.replace("-idx", f"{separator}idx") + suffix
            write(tmp_path / "data" / new, (small_data["mnist"] / name).read_bytes())
        code, out, err = command("train", "--recipe", "fashion", "--data", "data", "--dry-run")
        assert code == 0, err
        assert out.startswith("recipe fashion: ")
        assert " on 20 images of " in out

    def test_dry_run(self, command, small_data):
        flags = ("--data", small_data["cifar10"], "--dry-run", "--json")
        code, out, err = command("train", "--recipe", "cifar10", *flags)
        assert code == 0, err
        assert json.loads(out)["config"]["recipe"] == "cifar10"

    def test_find_rate(self, command, small_data):
        flags = ("--data", small_data["mnist"], "--find-rate", "--json", "--out", "run")
        code, out, err = command("train", "--recipe", "mnist-fast", *flags)
        assert code == 0, err
        assert json.loads(out)["suggestion"]


class TestFiles:
    def test_a_copy_of_a_recipe_is_a_file_of_flags(self, command, small_data):
        shutil.copy(ROOT / "mnist-fast.toml", "mine.toml")
        code, _, err = command("train", "--config", "mine.toml", "--data", small_data["mnist"], *QUICK)
        assert code == 0, err
        config = json.loads(Path("run/config.json").read_text())
        assert config["recipe"] is None
        assert config["learning_rate"] == recipes.read("mnist-fast").flags["learning_rate"]

    def test_a_file_may_name_a_recipe_whose_values_it_replaces(self, fixed, command, small_data):
        Path("mine.toml").write_text('recipe = "mnist-best"\nbatch-size = 20\nepochs = 1\naugment = []\n')
        code, out, err = command(
            "train", "--config", "mine.toml", "--data", small_data["mnist"], "--dry-run", "--json"
        )
        assert code == 0, err
        config = json.loads(out)["config"]
        assert (config["recipe"], config["batch_size"], config["augment"]) == ("mnist-best", 20, [])
        assert (config["optimizer"], config["normalize"]) == ("adamw", True)

    @pytest.mark.parametrize(
        ("text", "flags"),
        [
            ('recipe = "mnist-best"\noptimizer = "adam"\n', ()),
            ('optimizer = "adam"\nrecipe = "mnist-best"\nbias_rate = 1\n', ()),
            ('recipe = "mnist-best"\n', ("--optimizer", "adam")),
            ('recipe = "mnist-best"\noptimizer = "rmsprop"\nmomentum = 0.5\n', ("--optimizer", "adam")),
            ("momentum = 0.9\nnesterov = true\n", ("--optimizer", "adam")),
        ],
    )
    def test_another_optimizer_has_its_own_settings(self, fixed, command, small_data, text, flags):
        recipes.read("mnist-best").flags.update(OF_SGD)
        Path("mine.toml").write_text(text)
        data = ("--data", small_data["mnist"], "--dry-run", "--json")
        code, out, err = command("train", "--config", "mine.toml", *data, *flags)
        assert code == 0, err
        config = json.loads(out)["config"]
        assert {name: config[name] for name in OF_SGD} == OF_ADAM

    def test_the_settings_of_a_file_for_its_own_optimizer_hold(self, fixed, command, small_data):
        recipes.read("mnist-best").flags.update(OF_SGD)
        Path("mine.toml").write_text('recipe = "mnist-best"\noptimizer = "adam"\nlearning-rate = 0.01\n')
        data = ("--data", small_data["mnist"], "--dry-run", "--json")
        _, out, _ = command("train", "--config", "mine.toml", *data)
        config = json.loads(out)["config"]
        assert {name: config[name] for name in OF_SGD} == OF_ADAM | {"learning_rate": 0.01}

    @pytest.mark.parametrize("value", ['"imagenet"', "[1]", "3", '""'])
    def test_a_file_that_names_another_recipe(self, command, value):
        Path("mine.toml").write_text(f"recipe = {value}\n")
        code, _, err = command("train", "--config", "mine.toml")
        assert code == 2
        assert err.startswith("error: unknown recipe ")

    def test_a_recipe_and_a_file_cannot_be_given_together(self, command):
        Path("mine.toml").write_text("seed = 1\n")
        for flags in (
            ("--recipe", "cifar10", "--config", "mine.toml"),
            ("--config", "mine.toml", "--recipe=fashion"),
        ):
            code, out, err = command("train", *flags)
            assert (code, out) == (2, "")
            assert err == "error: --recipe and --config cannot be given together: leave one of them out\n"


class TestList:
    def test_all_recipes_fit_on_a_screen(self, command, terminal):
        terminal(80)
        code, out, err = command("train", "--recipe")
        assert (code, err) == (0, "")
        lines = re.sub("\x1b\\[[0-9;]*m", "", out).splitlines()
        assert max(map(len, lines)) <= 80
        rows = [line.split()[:2] for line in lines]
        expected = [[name, recipes.read(name).flags["data"]] for name in recipes.NAMES]
        assert [row for row in rows if row in expected] == expected
        for name in recipes.NAMES:
            assert f"  {recipes.read(name).title}" in out
        assert "`cnn train --recipe NAME`" in out

    def test_figures_that_are_not_known_are_dashes(self, command, listed):
        about = {"accuracy": 94.02, "spread": 0.1, "seeds": 3, "minutes": 120, "machine": "2 cores"}
        known = recipes.Recipe("fashion", {"data": "fashion-mnist"}, "Known", "2024", **about)
        new = recipes.Recipe("cifar10", {"data": "cifar10"}, "New", "2024")
        listed(known, new)
        _, out, _ = command("train", "--recipe")
        lines = out.splitlines()
        assert lines[1].split() == ["fashion", "fashion-mnist", "94.02", "±", "0.10", "%", "3", "120"]
        assert lines[3].split() == ["cifar10", "cifar10", "-", "-", "-"]
        text = " ".join(out.split())
        assert "The accuracy of fashion is measured on the test set. The minutes are those of " in text
        assert "those of training on 2 cores. " in text

    def test_it_says_which_images_the_accuracies_are_of(self, command, listed):
        held_out = "5,000 training images held out"
        listed(
            *(
                recipes.Recipe(name, {"data": "mnist"}, "Title", "2024", 99, 0.1, 3, images)
                for name, images in (("a", "the test set"), ("b", held_out), ("c", held_out))
            )
        )
        _, out, _ = command("train", "--recipe")
        text = " ".join(out.split())
        assert "The accuracy of a is measured on the test set. The accuracy of b, c is measured on 5" in text
        _, out, _ = command("train", "--recipe", "--json")
        assert [recipe["images"] for recipe in json.loads(out)] == ["the test set", held_out, held_out]

    @pytest.mark.parametrize(
        "flags", [("--recipe", "--json"), ("--json", "--recipe"), ("--json", "--recipe", "")]
    )
    def test_as_json(self, command, flags):
        code, out, _ = command("train", *flags)
        assert code == 0
        found = json.loads(out)
        assert [recipe["name"] for recipe in found] == list(recipes.NAMES)
        assert found[0]["flags"] == recipes.read("mnist-fast").flags
        assert {"title", "source", "accuracy", "spread", "seeds", "minutes", "machine"} <= set(found[0])

    def test_a_forgotten_name(self, command):
        for flags in (("--recipe", "--epochs", 3), ("--epochs", 3, "--recipe")):
            code, out, err = command("train", *flags)
            assert (code, out) == (2, "")
            names = ", ".join(recipes.NAMES)
            assert err == f"error: --recipe has no name, but --epochs is given: expected one of {names}\n"

    def test_only_options_are_without_a_value(self, command):
        code, out, err = command("summary", "source", "--json")
        assert (code, out) == (2, "")
        assert err.startswith("error: unknown model 'source': ")
        code, out, err = command("train", "--epochs", 1, "--", "--recipe")
        assert (code, out) == (2, "")
        assert "unexpected extra argument" in err

    def test_an_unknown_name(self, command):
        code, _, err = command("train", "--recipe", "cifar-10")
        assert code == 2
        assert err == (
            f"error: unknown recipe 'cifar-10': expected one of {', '.join(recipes.NAMES)}; "
            "did you mean 'cifar10'?\n"
        )
