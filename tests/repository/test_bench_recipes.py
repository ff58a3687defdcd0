"""scripts/benchmarks/recipes.py: it trains what is missing, and its figures are what they are called."""

import hashlib
import json
import statistics
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import ROOT
from scipy import stats

from cnn.data.published.downloads import PublishedFile
from cnn.runs import build
from cnn.runs.config import Config
from cnn.support.errors import ArgumentError

pytest.importorskip("threadpoolctl")

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import recipes as script
from peers.task import Training
from recipe_parts import measured, page, pytorch
from recipe_parts.command import Command, CommandFailed, Run
from recipe_parts.record import Mean, Record, Times

NAME = "mnist-fast"
PAGE = f"# Recipes\n\nBefore.\n\n{page.BEGIN}\n{page.NONE}\n{page.END}\nAfter.\n"


@pytest.fixture
def data(tmp_path):
    """A file of few images."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("test", 20)):
        arrays[f"x_{part}"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 10
    path = tmp_path / "few.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The JSON file of the recipe; the page is next to its folder."""
    monkeypatch.setattr(script, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(script, "PAGE", tmp_path / "recipes.md")
    script.PAGE.write_text(PAGE)
    return script.FOLDER / f"{NAME}.json"


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls the script; -> its exit code, and what it wrote to standard output and standard error."""

    def called(*arguments):
        monkeypatch.setattr("sys.argv", ["recipes.py", *map(str, arguments)])
        try:
            script.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return called


class Trained:
    """Stands in for the command: the settings that it has, and the seeds that it was called with."""

    def __init__(self, data):
        self.config = Config(recipe=NAME, model="lenet5", data=str(data), epochs=2, batch_size=16)
        self.seeds = []
        self.ends_at = None  # a seed

    def plan(self, command, seed):
        return {"config": asdict(self.config), "steps": 6}

    def run(self, command, seed):
        if seed == self.ends_at:
            raise KeyboardInterrupt
        self.seeds.append(seed)
        return Run(seed, seed / 1000, 2.0, float(seed), seed + 1.0)


@pytest.fixture
def trained(monkeypatch, data, place):
    stand_in = Trained(data)
    monkeypatch.setattr(Command, "plan", lambda *arguments: stand_in.plan(*arguments))
    monkeypatch.setattr(Command, "run", lambda *arguments: stand_in.run(*arguments))
    return stand_in


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_mean_its_deviation_and_its_interval(count):
    values = np.random.default_rng(count).normal(0.99, 0.001, count).tolist()
    found = Mean.of(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values)) == pytest.approx(np.std(values, ddof=1))
    expected = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.interval == pytest.approx(expected)


def test_one_seed_has_no_deviation():
    assert Mean.of([0.5]) == Mean(0.5, None, None)


def test_a_time_is_the_median_with_the_range():
    assert Times.of([3.0, 1.0, 2.0, 10.0]) == Times(2.5, 1.0, 10.0)


def test_it_measures_what_a_user_gets(data, place, call):
    options = ["--seeds", 2, "--first-seed", 7, "--data", data]
    code, output, errors = call(NAME, *options, "--", "--epochs", 2, "--batch-size", 16)
    assert code == 0, errors
    found = json.loads(place.read_text())
    assert (found["format"], found["schema"], found["recipe"]) == ("xpcnn recipe", 1, NAME)
    assert [run["seed"] for run in found["runs"]] == [7, 8]
    accuracies = [run["accuracy"] for run in found["runs"]]
    assert all(accuracy * 20 == pytest.approx(round(accuracy * 20)) for accuracy in accuracies)
    assert found["runs"][0]["loss"] != found["runs"][1]["loss"]
    assert all(0 < run["training_seconds"] < run["command_seconds"] for run in found["runs"])
    assert found["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    what = found["measured"]
    assert (what["settings"]["epochs"], what["settings"]["batch_size"], what["steps"]) == (2, 16, 6)
    assert "seed" not in what["settings"]
    assert what["settings"]["data"] == what["data"]["name"] == "few.npz"
    assert (what["data"]["training_images"], what["data"]["test_images"]) == (40, 20)
    assert what["hardware"]["threads"] >= 1
    assert str(data.parent) not in place.read_text()
    assert output.strip() in script.PAGE.read_text()
    assert f"{NAME} with" in output


def test_only_the_missing_seeds_are_trained(trained, place, call):
    trained.ends_at = 102
    code, _, errors = call(NAME)
    assert (code, errors.splitlines()[-1]) == (
        130,
        "interrupted: the same call continues with what is missing",
    )
    assert [run["seed"] for run in json.loads(place.read_text())["runs"]] == [100, 101]
    trained.ends_at = None
    assert call(NAME)[0] == 0
    assert trained.seeds == [100, 101, 102, 103, 104]
    assert call(NAME, "--seeds", 3)[0] == 0  # all are there
    assert trained.seeds == [100, 101, 102, 103, 104]
    found = json.loads(place.read_text())
    assert [run["seed"] for run in found["runs"]] == trained.seeds
    assert found["summary"]["training_seconds"] == {"median": 102.0, "lowest": 100.0, "highest": 104.0}


def other_settings(trained, monkeypatch):
    trained.config = replace(trained.config, learning_rate=0.5)


def other_code(trained, monkeypatch):
    monkeypatch.setattr(measured, "code_hash", lambda: "another")


def other_data(trained, monkeypatch):
    with np.load(trained.config.data) as old:
        arrays = dict(old)
    arrays["x_test"][3, 2, 1] ^= 1
    np.savez(trained.config.data, **arrays)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_settings, "other settings"),
        (other_code, "another state of the code"),
        (other_data, "other data"),
    ],
)
def test_something_else_is_measured_again(change, words, trained, monkeypatch, place, call):
    call(NAME, "--seeds", 2)
    change(trained, monkeypatch)
    code, _, errors = call(NAME, "--seeds", 1)
    assert code == 0
    assert f"{NAME}.json has {words}: all runs are measured again, and the first one overwrites" in errors
    assert trained.seeds == [100, 101, 100]
    assert [run["seed"] for run in json.loads(place.read_text())["runs"]] == [100]


def test_data_may_lie_elsewhere(trained, tmp_path, call):
    call(NAME, "--seeds", 1)
    moved = tmp_path / "moved.npz"
    moved.write_bytes((tmp_path / "few.npz").read_bytes())
    trained.config = replace(trained.config, data=str(moved))
    assert call(NAME, "--seeds", 1)[0] == 0
    assert trained.seeds == [100]


@pytest.fixture
def compared(monkeypatch):
    found = {
        "pytorch_training_seconds": 130.0,
        "fastest": "torch.compile",
        "times_pytorch": {"median": 2.0, "low": 1.9, "high": 2.25},
    }
    monkeypatch.setattr(script, "require_pytorch", lambda: None)
    monkeypatch.setattr(script, "compare", lambda config, steps, train: found)
    return found


def test_a_comparison_and_runs_are_in_one_file(trained, monkeypatch, compared, place, call):
    assert call(NAME, "--peer")[0] == 0
    assert trained.seeds == []
    assert call(NAME, "--seeds", 2)[0] == 0
    other_code(trained, monkeypatch)  # which does not make the runs false
    assert call(NAME, "--peer")[0] == 0
    found = json.loads(place.read_text())
    assert [run["seed"] for run in found["runs"]] == [100, 101]
    assert found["pytorch"].items() >= compared.items()
    assert "2 min 10 s (torch.compile)" in script.PAGE.read_text()


def test_a_comparison_of_another_step_does_not_overwrite_runs(trained, monkeypatch, compared, place, call):
    call(NAME, "--seeds", 1)
    before = place.read_text()
    other_settings(trained, monkeypatch)
    code, _, errors = call(NAME, "--peer")
    assert code == 2
    assert f"{place} has runs with other settings: give --peer the flags of these runs" in errors
    assert place.read_text() == before


def test_seeds_for_tuning_are_not_mixed_with_others(trained, place, call):
    call(NAME, "--seeds", 2, "--first-seed", 0)
    errors = call(NAME, "--seeds", 2)[2]
    assert f"{NAME}.json begins with seed 0, not 100: all runs are measured again" in errors
    assert [run["seed"] for run in json.loads(place.read_text())["runs"]] == [100, 101]


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", '{"format": "xpcnn peers", "schema": 1}', '{"format": "xpcnn recipe", "schema": 1}'],
)
def test_a_damaged_file_is_one_sentence(damaged, trained, place, call):
    place.parent.mkdir()
    place.write_text(damaged)
    code, output, errors = call(NAME)
    assert (code, output, trained.seeds) == (2, "", [])
    (line,) = errors.splitlines()
    assert line.startswith(f"error: {place} is damaged (")
    assert line.endswith("remove the file to measure the recipe again")
    assert place.read_text() == damaged


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cifar11"], "unknown recipe 'cifar11': expected one of mnist-fast"),
        ([], "no recipe is given: expected one of mnist-fast"),
        (["--table", NAME], "--table measures nothing"),
        ([NAME, "--seeds", "0"], "'0' is no whole number from 1"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, expected, trained, call):
    code, output, errors = call(*arguments)
    (line,) = errors.splitlines()
    assert (code, output, trained.seeds) == (2, "", [])
    assert line.startswith("error: ")
    assert expected in line


def test_a_mistake_in_the_flags_is_the_commands_sentence():
    with pytest.raises(CommandFailed, match=r"^invalid value for '--epochs': 'many'") as failed:
        Command(NAME, flags=["--epochs", "many"]).plan(0)
    assert failed.value.code == 2
    assert "\n" not in str(failed.value)


def test_without_pytorch_there_is_no_comparison(trained, monkeypatch, place, call):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "peers.pytorch", raising=False)
    code, _, errors = call(NAME, "--peer")
    assert code == 2
    assert errors == "error: --peer cannot compare: PyTorch is not installed: pip install torch\n"
    assert not place.exists()


def make_record(trained, **others):
    what = measured.describe(trained.config, 6, build.load_data(trained.config), "mnist")
    what |= {"title": NAME, "hardware": {"processor": "Fast", "threads": 2, "vector_bits": 512}}
    runs = [Run(seed, accuracy, 0.1, 60.0 + seed, 300.0) for seed, accuracy in ((5, 0.99), (6, 0.98))]
    return Record(NAME, what, 5, runs, **others)


def test_the_table_says_what_was_measured(trained, compared):
    cells = page.row(make_record(trained, pytorch=compared))
    assert cells == [
        NAME,
        "few.npz",
        "98.50 ± 0.71 %",
        "92.15 to 104.85 %",
        "2, from 5",
        "1 min 6 s (1 min 5 s to 1 min 6 s)",
        "5 min 0 s (5 min 0 s to 5 min 0 s)",
        "2 min 10 s (torch.compile)",
        "2.00 (1.90 to 2.25)",
        "Fast, 2 threads, vectors of 512 bits",
    ]
    assert len(cells) == len(page.HEADINGS)


def test_what_is_not_measured_is_a_dash(trained):
    record = make_record(trained)
    record.runs = []
    assert page.row(record)[2:-1] == ["-"] * 7
    record.runs = [Run(5, 0.5, 0.1, 1.0, 2.0)]
    assert page.row(record)[2:5] == ["50.00 %", "-", "1, from 5"]


def test_the_table_alone_is_written_again(trained, place, call):
    make_record(trained).write(place)
    script.PAGE.write_text(PAGE.replace(page.NONE, "an old table\n"))
    code, output, _ = call("--table")
    text = script.PAGE.read_text()
    assert (code, trained.seeds) == (0, [])
    assert "98.50 ± 0.71 %" in output
    assert text == PAGE.replace(page.NONE, output.removesuffix("\n"))


def test_a_page_without_a_place_for_the_table_is_kept(trained, call):
    script.PAGE.write_text("# Recipes\n")
    code, _, errors = call(NAME)
    assert (code, trained.seeds) == (2, [])
    assert f"{script.PAGE} does not show where the table is" in errors
    assert script.PAGE.read_text() == "# Recipes\n"


def test_the_page_shows_the_files_next_to_it():
    before, after = page.around_table(script.PAGE)
    table = page.make_table(page.read_all(script.FOLDER))
    assert script.PAGE.read_text() == f"{before}{page.BEGIN}\n{table}\n{page.END}{after}"


@pytest.mark.parametrize(
    ("source", "published", "training", "test", "expected"),
    [
        ("cifar10", "cifar10", 50_000, 10_000, "cifar10, test set"),
        ("cifar10", "cifar10", 500, 10_000, "cifar10, test set"),
        ("mnist", "fashion-mnist", 60_000, 10_000, "mnist, test set"),
        ("/somewhere/binary", "cifar10", 50_000, 10_000, "binary"),  # which may be of other images
        ("/somewhere/held.npz", "cifar10", 45_000, 5_000, "cifar10, 5,000 training images held out"),
        (
            "/somewhere/held.npz",
            "fashion-mnist",
            54_000,
            6_000,
            "fashion-mnist, 6,000 training images held out",
        ),
        ("/somewhere/own.npz", "mnist", 40, 20, "own.npz"),
    ],
)
def test_the_table_names_the_images(source, published, training, test, expected):
    assert measured.data_name(source, published, training, test) == expected


def test_the_published_files_are_known_by_their_checksums(tmp_path, monkeypatch):
    files = {"images.gz": b"images", "labels.gz": b"labels"}
    published = [
        PublishedFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    monkeypatch.setitem(measured.DOWNLOADED, "fashion-mnist", published)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def name():
        return measured.data_name(str(tmp_path), "fashion-mnist", 60_000, 10_000)

    assert name() == "fashion-mnist, test set"
    (tmp_path / "labels.gz").write_bytes(b"others")
    assert name() == tmp_path.name
    (tmp_path / "labels.gz").unlink()
    assert name() == tmp_path.name
    monkeypatch.setitem(measured.DOWNLOADED, "cifar10", published[:1])
    assert measured.data_name(str(tmp_path / "images.gz"), "cifar10", 1, 1) == "cifar10, test set"


def test_the_comparison_has_the_recipes_network_and_update(data):
    config = Config(
        model="lenet5", data=str(data), batch_size=16, optimizer="muon", momentum=0.6, weight_decay=0.01,
        optimizer_options=["steps=3", "hidden_only=true", "other_rate=0.1"], label_smoothing=0.2, whiten=True,
        threads=1,
    )  # fmt: skip
    train, _, _ = build.load_data(config)
    setting = pytorch.make_setting(config, train)
    assert (setting.network.shape, setting.network.frozen) == ((1, 28, 28), ("0",))
    assert (setting.batch_size, setting.threads) == (16, 1)
    given = {"steps": 3, "hidden_only": True, "label_smoothing": 0.2, "clip": config.clip}
    assert setting.training == Training("muon", 0.6, True, 0.01, **given)
    adam = replace(config, optimizer="adam", momentum=None, optimizer_options=["betas=0.7:0.9"], ema=0.9)
    given = {"betas": (0.7, 0.9), "label_smoothing": 0.2, "clip": config.clip}
    assert pytorch.make_training(adam, images=40) == Training("adam", weight_decay=0.01, **given)


def test_dropout_drops_nothing_in_the_comparison():
    network = pytorch.make_network("mnist-pytorch", 10, (1, 28, 28))
    assert [layer.p for layer in network.walk() if hasattr(layer, "p")] == [0.0, 0.0]


def test_the_comparison_is_on_the_cpu(data, monkeypatch):
    class Elsewhere:
        name = "cuda"

    monkeypatch.setattr(pytorch, "find_backend", lambda config: Elsewhere)
    config = Config(data=str(data))
    with pytest.raises(ArgumentError, match="--peer measures on the CPU, but the run is on cuda"):
        pytorch.make_setting(config, build.load_data(config)[0])


def test_a_layer_that_is_not_translated_cannot_be_compared(data, monkeypatch):
    class Translating:
        def __init__(self, threads):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def prove(self, jobs):
            raise NotImplementedError("this script has no module of PyTorch for Mish()")

    monkeypatch.setattr(pytorch, "Processes", Translating)
    config = Config(model="lenet5", data=str(data))
    with pytest.raises(ArgumentError, match="--peer cannot compare: this script has no module of PyTorch"):
        pytorch.compare(config, 6, build.load_data(config)[0])


def test_ours_and_pytorch_take_turns(data, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(pytorch, "PYTORCH", ("pytorch", "channels_last"))  # compiling takes long
    config = Config(model="lenet5", data=str(data), batch_size=16, threads=1, label_smoothing=0.1)
    found = pytorch.compare(config, 100, build.load_data(config)[0], rounds=2)
    seconds = {name: spread["median"] for name, spread in found["step_seconds"].items()}
    assert seconds.keys() == {"ours, compiled", "PyTorch eager", "PyTorch channels_last"}
    assert found["pytorch_training_seconds"] == 100 * seconds[found["fastest"]]
    assert found["our_training_seconds"] == 100 * seconds["ours, compiled"]
    assert found["training"]["label_smoothing"] == 0.1
