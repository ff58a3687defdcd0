"""The data of ``cnn train`` and ``cnn evaluate``: labels, classes and ranges as people have them."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_files import NAMES, idx
from helpers.small_run import SMALL

from cnn.data.published.fashion_mnist import CLASSES

# labels with which the training and the test set of Fashion-MNIST begin
CLOTHES = (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 1, 4, 6, 8), (9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 0, 3)


def write_idx(train_labels, test_labels):
    """Write IDX files with these labels; -> the folder."""
    Path("data").mkdir()
    random = np.random.default_rng(0)
    for name, labels in zip(NAMES, (train_labels, train_labels, test_labels, test_labels), strict=True):
        images = random.integers(0, 256, (len(labels), 28, 28))
        Path("data", name).write_bytes(idx(images if "images" in name else np.array(labels)))
    return "data"


def class_names(run):
    return tuple(json.loads(Path(run, "config.json").read_text())["class_names"])


def test_evaluate_gives_what_train_gave(command, own_data):
    code, out, _ = command("train", *SMALL, "--data", own_data, "--out", "run", "--json")
    trained = json.loads(out)
    assert (code, trained["count"]) == (0, 40)
    code, out, _ = command("evaluate", "run", "--device", "cpu", "--json")
    found = json.loads(out)
    assert {name: found[name] for name in ("loss", "accuracy", "count")} == {
        name: trained[name] for name in ("loss", "accuracy", "count")
    }
    assert sum(map(sum, found["confusion"])) == 40
    assert list(found["per_class"]) == ["dark", "bright"]
    assert sum(row["count"] for row in found["per_class"].values()) == 40
    assert 0 <= found["calibration_error"] <= 1
    assert found["f1"] == sum(row["f1"] for row in found["per_class"].values()) / 2
    _, out, _ = command("evaluate", "run", "--device", "cpu")
    assert out.startswith(
        f"test accuracy {trained['accuracy']:.2%}, loss {trained['loss']:.4f}, on 40 images\n"
    )


def test_classes_in_another_order_are_told_by_their_names(command, own_data, tmp_path):
    flags = ("--learning-rate", 0.1, "--out", "run", "--json")
    _, out, _ = command("train", *SMALL, "--data", own_data, *flags)
    arrays = dict(np.load(own_data))
    arrays |= {name: 1 - arrays[name] for name in ("y_train", "y_test")}
    arrays["classes"] = arrays["classes"][::-1]
    np.savez(tmp_path / "turned.npz", **arrays)
    _, again, _ = command("evaluate", "run", "--data", "turned.npz", "--json")
    assert json.loads(again)["accuracy"] == json.loads(out)["accuracy"] > 0.9


class TestDataAsPeopleHaveThem:
    """How the arrays of a file were understood is said before anything runs."""

    @pytest.fixture
    def arrays(self, own_data):
        return dict(np.load(own_data))

    def test_the_headline_says_it(self, command, arrays):
        arrays |= {name: arrays[name][..., None] for name in ("x_train", "x_test")}
        np.savez("last.npz", **arrays | {name: arrays[name][:, None] for name in ("y_train", "y_test")})
        code, out, _ = command("train", *SMALL, "--data", "last.npz", "--out", "run", "--dry-run")
        count = len(arrays["x_train"])
        assert code == 0
        notes = f"channels last, taken as ({count}, 1, 20, 20); labels ({count}, 1) taken as ({count},)"
        assert f"last.npz ({notes}); cpu" in out.splitlines()[0]

    def test_evaluate_says_it_and_takes_data_that_lack_a_class(self, command, arrays, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        keep = arrays["y_test"] == 1
        arrays |= {"x_test": arrays["x_test"][keep, ..., None], "y_test": np.array(["bright"] * keep.sum())}
        arrays |= {"x_train": arrays["x_test"], "y_train": arrays["y_test"]}
        np.savez("other.npz", **{name: array for name, array in arrays.items() if name != "classes"})
        code, out, err = command("evaluate", "run", "--data", "other.npz", "--json")
        assert code == 0, err
        assert json.loads(out)["count"] == keep.sum()
        assert "note: channels last, taken as (" in err
        assert "note: labels are names: 'bright'" in err

    def test_a_run_whose_labels_count_from_1_can_be_evaluated(self, command, arrays):
        del arrays["classes"]
        np.savez("one.npz", **arrays | {name: arrays[name] + 1 for name in ("y_train", "y_test")})
        assert command("train", *SMALL, "--data", "one.npz", "--out", "run")[0] == 0
        code, out, _ = command("evaluate", "run", "--json")
        assert (code, json.loads(out)["count"]) == (0, 40)

    def test_images_in_another_range_are_told(self, command, arrays):
        wide = {name: arrays[name].astype(np.float32) for name in ("x_train", "x_test")}
        np.savez("wide.npz", **arrays | wide)
        for flags in (["--dry-run"], []):
            code, _, err = command("train", *SMALL, "--data", "wide.npz", "--out", "run", *flags)
            assert code == 0
            assert err.count("note: the training images are floats from 0 to ") == 1
            assert "validation images go" not in err

    def test_what_is_no_data_set_is_named(self, command, tmp_path):
        (tmp_path / "train.csv").write_text("label,pixel0\n5,0\n")
        code, out, err = command("train", *SMALL, "--data", "train.csv")
        assert (code, out) == (2, "")
        assert "train.csv: this is a table as text (CSV) with 2 columns" in err
        assert len(err.splitlines()) == 1


def test_classes_may_be_told_by_their_labels(command, own_data):
    arguments = ("train", *SMALL, "--data", own_data, "--out", "run", "--classes", "1,0")
    assert command(*arguments)[0] == 0
    assert json.loads(Path("run/config.json").read_text())["class_names"] == ["bright", "dark"]


def test_mnist_is_the_bundled_set_wherever_one_stands(command, tmp_path):
    (tmp_path / "mnist").mkdir()
    code, _, err = command("train", *SMALL, "--classes", "0,1", "--per-class", 8, "--out", "run")
    assert code == 0, err
    assert err.startswith("notebook on 16 images of mnist")


def test_fashion_mnist_has_its_names_which_its_files_lack(command):
    data = write_idx(*CLOTHES)
    code, _, err = command("train", *SMALL, "--data", data, "--out", "run")
    assert code == 0, err
    assert class_names("run") == CLASSES
    code, out, err = command("evaluate", "run")
    assert (code, "Ankle boot" in out) == (0, True)
    assert "names" not in err
    code, out, err = command("evaluate", "run", "--data", "mnist")
    assert (code, out) == (2, "")
    assert "has none of the classes 'T-shirt/top'" in err


def test_other_idx_files_have_numbers(command):
    data = write_idx(CLOTHES[0][::-1], CLOTHES[1])
    assert command("train", *SMALL, "--data", data, "--out", "run")[0] == 0
    assert class_names("run") == tuple("0123456789")


def test_a_run_that_is_older_than_the_names_keeps_its_numbers(command):
    flags = (*SMALL, "--data", write_idx(*CLOTHES), "--classes", "9,0,3")
    assert command("train", *flags, "--out", "run")[0] == 0
    path = Path("run/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_names": ["9", "0", "3"]}))
    code, _, err = command("train", "--resume", "run", "--epochs", 2, "--no-report")
    assert code == 0, err
    assert class_names("run") == ("9", "0", "3")
    code, out, err = command("evaluate", "run", "--json")
    assert code == 0, err
    assert list(json.loads(out)["per_class"]) == ["9", "0", "3"]
    code, _, err = command("train", *flags[2:], "--from", "run", "--out", "new")
    assert code == 0, err
    assert "all layers have its weights, since the 3 classes are the same" in err
