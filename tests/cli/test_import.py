"""Weights from elsewhere become a run's folder, or one sentence says why not and nothing is left."""

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from helpers.small_run import SMALL
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import cnn
from cnn.runs.report import Evaluation
from cnn.saving.foreign import matched, without_wrappers
from cnn.training import defaults


@pytest.fixture
def weights():
    """LeNet-5's for the own data: random, biases too."""
    network = cnn.models.lenet5(2)
    network.build((1, 20, 20), backend="cpu", seed=5)
    random = np.random.default_rng(0)
    return {
        name: array + random.normal(0, 0.1, array.shape).astype("f")
        for name, array in network.state_dict().items()
    }


@pytest.fixture
def give(command, own_data):
    """``give(weights)`` -> what `cnn import` answers to a file with nothing but them."""

    def give(weights, *flags):
        save_file(weights, "w.safetensors")
        return command(
            "import", "w.safetensors", "--data", own_data, "--device", "cpu", "--out", "run", *flags
        )

    return give


def test_what_is_to_be_known_of_the_data_is_said(command, give, weights, tmp_path):
    images = np.full((4, 20, 20, 1), 300.0)
    np.savez("floats.npz", x_train=images, y_train=[0, 1, 0, 1], x_test=images, y_test=[0, 1, 0, 1])
    code, _, err = give(weights, "--data", "floats.npz")
    assert (code, err.splitlines()) == (
        0,
        [
            "note: channels last, taken as (4, 1, 20, 20)",
            "note: the test images are floats from 300 to 300, used unchanged: they train better if scaled "
            "to 0..1",
        ],
    )


def test_an_imported_run_is_tested_as_the_one_it_came_from(command, own_data):
    _, out, _ = command("train", *SMALL, "--data", own_data, "--out", "run", "--json")
    trained = json.loads(out)
    figures = {name: trained[name] for name in ("loss", "accuracy", "count")}
    flags = ("run/model.safetensors", "--model", "notebook", "--data", own_data, "--device", "cpu")
    code, out, err = command("import", *flags, "--out", "again")
    assert (code, err) == (0, "")
    line = f"test accuracy {trained['accuracy']:.2%}, loss {trained['loss']:.4f}, on 40 images"
    assert out == f"{line}\nagain\n"
    _, out, _ = command("evaluate", "again", "--device", "cpu", "--json")
    assert figures.items() <= json.loads(out).items()
    _, out, _ = command("import", *flags, "--json")
    said = json.loads(out)
    assert re.fullmatch(r"runs/notebook-\d{8}-\d{6}", said.pop("run"))
    assert said == figures


def test_the_folder_holds_what_a_run_holds(give, own_data, weights):
    assert give(weights, "--classes", "bright, dark")[0] == 0
    folder = Path("run")
    names = {"config.json", "environment.json", "model.safetensors", "evaluation.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    config = json.loads((folder / "config.json").read_text())
    assert (config["model"], config["data"], config["epochs"]) == ("lenet5", str(own_data), 0)
    assert config["batch_size"] == 128
    assert (config["class_names"], config["input_shape"]) == (["bright", "dark"], [1, 20, 20])
    for name, array in load_file(folder / "model.safetensors").items():
        np.testing.assert_array_equal(array, weights[name])
    assert cnn.load(folder / "model.safetensors", device="cpu").input_shape == (1, 20, 20)


@pytest.mark.parametrize("own", [False, True])
def test_an_imported_run_says_with_what_to_train_a_new_one(command, give, weights, own_data, own):
    """Its network, without the weights; what suits the data, since the run itself was not trained."""
    assert give(weights)[0] == 0
    if own:  # a file that describes its network
        command("import", "run/model.safetensors", "--data", own_data, "--out", "described")
    imported = "described" if own else "run"
    flags = "--device", "cpu", "--no-report", "--max-minutes", 0.001, "--learning-rate", 0.01
    code, out, err = command("train", "--config", imported, "--out", "new", *flags)
    assert code == 0, err
    config = json.loads(Path("new/config.json").read_text())
    assert config["model"] == (str(Path(imported).absolute()) if own else "lenet5")
    assert config["epochs"] > 0
    assert config["batch_size"] == defaults.batch_size(96)
    assert load_file("new/model.safetensors").keys() == weights.keys()
    code, out, err = command("runs", ".", "--json")
    assert code == 0, err
    assert [run["epochs"] for run in json.loads(out) if run["run"] == imported] == [0]


def test_an_imported_run_that_is_not_tested_is_finished_and_says_what_it_lacks(command, give, weights):
    assert give(weights)[0] == 0
    assert command("import", "run/model.safetensors", "--out", "untested")[0] == 0
    (found,) = json.loads(command("runs", "untested", "--json")[1])
    assert (found["state"], found["accuracy"]) == ("finished", None)
    code, out, err = command("train", "--config", "untested", "--out", "new")
    assert (code, out) == (2, "")
    assert err == "error: the run does not say where its data are: give their path with --data\n"


def test_the_data_are_found_from_anywhere(command, own_data, weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "w.safetensors")
    monkeypatch.chdir(own_data.parent)
    flags = ("--data", own_data.name, "--out", tmp_path / "run", "--device", "cpu")
    assert command("import", tmp_path / "w.safetensors", *flags)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert command("evaluate", "run", "--device", "cpu")[0] == 0


def test_an_imported_run_can_be_exported(give, command, weights):
    pytest.importorskip("onnx")
    assert give(weights)[0] == 0
    assert command("export", "run", "model.onnx")[0] == 0


def test_an_imported_run_has_a_report(give, command, weights):
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package)
    assert give(weights)[0] == 0
    assert command("report", "run")[0] == 0
    assert "bright" in Path("run/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_cast(give, weights, dtype):
    given = {name: array.astype(dtype) for name, array in weights.items()}
    assert give(given)[0] == 0
    for name, array in load_file("run/model.safetensors").items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, given[name].astype(np.float32))


def test_float64_is_kept_where_it_is_asked_for(give, weights):
    given = {name: array.astype("float64") / 3 for name, array in weights.items()}
    assert give(given, "--dtype", "float64")[0] == 0
    for name, array in load_file("run/model.safetensors").items():
        np.testing.assert_array_equal(array, given[name])


def test_lenet5_of_pytorch(command, own_data):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(144, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2),
    )  # fmt: skip
    save_file(model.state_dict(), "lenet5.safetensors")
    flags = ("--model", "lenet5", "--data", own_data, "--device", "cpu", "--out", "run", "--json")
    code, out, err = command("import", "lenet5.safetensors", *flags)
    assert code == 0, err
    data = np.load(own_data)
    with torch.no_grad():
        logits = model(torch.from_numpy(data["x_test"][:, None] / np.float32(255)))
    labels = torch.from_numpy(data["y_test"])
    assert json.loads(out)["accuracy"] == (logits.argmax(1) == labels).double().mean()
    assert json.loads(out)["loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, labels).item(), rel=1e-5
    )
    network = cnn.load("run/model.safetensors", device="cpu")
    np.testing.assert_allclose(network.predict(data["x_test"]), logits.softmax(1).numpy(), rtol=0, atol=1e-5)


def test_a_run_with_weights_that_are_not_finite_is_refused_by_all_commands(give, command, weights):
    assert give(weights)[0] == 0
    save_file({**weights, "7.bias": np.full(120, np.inf, dtype="f")}, "run/model.safetensors")
    Path("picture.png").touch()
    for arguments in (("evaluate", "run"), ("predict", "run", "picture.png"), ("export", "run", "m.onnx"),
                      ("report", "run")):  # fmt: skip
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(
            "error: run/model.safetensors: 7.bias has 120 of 120 values that are NaN or inf"
        )


def test_what_overflows_is_null_in_json_and_the_run_stays_readable(give, command, weights):
    def valid(text):
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    code, out, err = give({**weights, "11.bias": np.array([3e38, -3e38], dtype="f")}, "--json")
    assert (code, valid(out)["loss"]) == (0, None), err
    code, out, err = command("evaluate", "run", "--json")
    assert (code, valid(out)["loss"], valid(out)["count"]) == (0, None, 40), err
    assert np.isnan(Evaluation.load("run/evaluation.safetensors").loss)
    with safe_open("run/evaluation.safetensors", framework="numpy") as file:
        valid(file.metadata()["xpcnn"])


class TestOtherNames:
    """Weights that are called otherwise are taken where it is clear what belongs where, and that is shown."""

    NAMES: ClassVar = dict(
        zip(("0", "3", "7", "9", "11"), ("conv1", "conv2", "fc1", "fc2", "fc3"), strict=True)
    )

    def assert_taken(self, weights):
        kept = load_file("run/model.safetensors")
        for name, array in weights.items():
            np.testing.assert_array_equal(kept[name], array)

    @pytest.mark.parametrize(
        "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.module.network."]
    )
    def test_a_prefix_that_all_share(self, give, weights, prefix):
        code, _, err = give({prefix + name: array for name, array in weights.items()})
        assert (code, err) == (
            0,
            f"{prefix}0.bias and the others are used without their common prefix\n",
        )
        self.assert_taken(weights)

    def test_names_within_and_counters_of_pytorch(self, weights):
        named = {name.replace(".", "._orig_mod."): array for name, array in weights.items()}
        named |= {"n_averaged": np.array(3), "0.num_batches_tracked": np.array(3)}
        assert without_wrappers(named, weights) == weights

    def test_a_prefix_in_python(self, weights, tmp_path):
        save_file({f"module.{name}": array for name, array in weights.items()}, tmp_path / "w.safetensors")
        network = cnn.models.lenet5(2)
        network.build((1, 20, 20), backend="cpu")
        cnn.load(tmp_path / "w.safetensors", network=network)
        np.testing.assert_array_equal(network.state_dict()["3.weight"], weights["3.weight"])

    def test_names_of_ones_own(self, give, weights):
        theirs = {name: f"{self.NAMES[name.split('.')[0]]}.{name.split('.')[1]}" for name in weights}
        code, _, err = give({f"module.{theirs[name]}": array for name, array in weights.items()})
        assert code == 0, err
        assert err.splitlines()[0] == "module.conv1.weight is used as 0.weight (6, 1, 5, 5)"
        assert err.count(" is used as ") == 10
        self.assert_taken(weights)

    def test_names_of_a_reference_implementation(self, command, tmp_path):
        """Those of the widely used ResNets for CIFAR-10, of which many have one shape."""
        network = cnn.models.make("resnet8", 2)
        network.build((3, 8, 8), backend="cpu", seed=4)
        names = cnn.models.reference_names("resnet8", network.shapes)
        state = {names[name]: array for name, array in network.state_dict().items()}
        random = np.random.default_rng(0)
        pictures = random.integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
        labels = np.arange(8) % 2
        np.savez("p.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
        save_file(dict(sorted(state.items())), "w.safetensors")
        flags = ("--data", "p.npz", "--device", "cpu", "--out", "run", "--model", "resnet8")
        code, _, err = command("import", "w.safetensors", *flags)
        assert code == 0, err
        assert "layer2.0.bn1.running_var is used as 5.1.running_var (32,)" in err.splitlines()
        self.assert_taken(network.state_dict())

    def test_arrays_of_one_shape_go_with_their_layers_or_by_number(self):
        shapes = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,), "4.weight": (8, 8),
                  "4.bias": (8,)}  # fmt: skip
        theirs = [
            "head.weight",
            "head.bias",
            "body.2.weight",
            "body.2.bias",
            "body.10.weight",
            "body.10.bias",
        ]
        state = dict(zip(theirs, map(np.zeros, shapes.values()), strict=True))
        expected = dict(zip(shapes, theirs, strict=True))
        assert matched(dict(sorted(state.items())), shapes) == expected
        in_order = {f"arr_{n}": array for n, array in enumerate(state.values())}
        assert list(matched(in_order, shapes).values()) == list(in_order)

    def test_an_npz_which_is_never_unpickled(self, command, own_data, weights):
        flags = ("--data", own_data, "--device", "cpu", "--out", "run")
        np.savez("w.npz", **weights, own=np.array([{}], dtype=object))
        code, _, err = command("import", "w.npz", *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: w.npz: own: holds Python objects, which are never unpickled: ")
        np.savez("w.npz", **weights)
        assert command("import", "w.npz", *flags)[0] == 0
        self.assert_taken(weights)

    def test_bfloat16_is_taken_exactly(self, command, own_data, weights):
        halves = {name: (array.view(np.uint32) >> 16).astype("<u2") for name, array in weights.items()}
        parts = {name: ("BF16", array.shape, array.tobytes()) for name, array in halves.items()}
        parts["0.bias"] = ("F32", (6,), weights["0.bias"].tobytes())
        write_raw("w.safetensors", parts)
        flags = ("--data", own_data, "--device", "cpu", "--out", "run")
        code, _, err = command("import", "w.safetensors", *flags)
        assert code == 0, err
        cut = {name: (array.astype(np.uint32) << 16).view("f") for name, array in halves.items()}
        self.assert_taken(cut | {"0.bias": weights["0.bias"]})


def write_raw(path, arrays):
    """A safetensors file of (dtype, shape, bytes) by name."""
    header, body = {}, b""
    for name, (dtype, shape, data) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + body)


class TestMisfits:
    """One sentence that names the file and what does not fit; no folder is made."""

    def refused(self, answer, *patterns):
        code, out, err = answer
        assert (code, out, err.count("\n")) == (2, "", 1), err
        for pattern in ("^error: ", *patterns):
            assert re.search(pattern, err), err
        assert not Path("run").exists()
        assert not Path("runs").exists()

    def test_one_too_many(self, give, weights):
        answer = give({**weights, "12.weight": np.zeros(3, dtype="f")})
        self.refused(answer, r"w\.safetensors: 12\.weight \(3,\) has no place in this network$")

    def test_one_missing(self, give, weights):
        del weights["7.bias"]
        self.refused(give(weights), r"no array is left for this network's 7\.bias \(120,\); ")

    def test_another_shape(self, give, weights):
        answer = give({**weights, "7.bias": np.zeros(7, dtype="f")})
        self.refused(
            answer, r"w\.safetensors: the weights have 7\.bias with shape \(7,\), .* shape \(120,\)$"
        )

    def test_numbers_that_are_not_finite(self, give, weights):
        bias = np.full(6, np.nan, dtype="f")
        self.refused(
            give({**weights, "0.bias": bias}),
            r"w\.safetensors: 0\.bias has 6 of 6 values that are NaN or infinite: use weights from before",
        )

    def test_other_classes(self, give, weights):
        self.refused(give(weights, "--classes", "dark"), r"11\.weight with shape \(2, 84\), .*\(1, 84\)")

    def test_another_model(self, give, weights):
        self.refused(
            give(weights, "--model", "notebook"),
            r"no array is left for this network's 0\.weight \(5, 1, 3, 3\); those that are left are 0\.bias",
        )
        self.refused(give(weights, "--model", "resnet"), "unknown model 'resnet'")

    def test_numbers_of_8_bits_say_how_to_save_instead(self, command, own_data):
        write_raw("b.safetensors", {"0.weight": ("F8_E4M3", (4,), bytes(4))})
        answer = command("import", "b.safetensors", "--data", own_data)
        self.refused(answer, r"b\.safetensors: 0\.weight is F8_E4M3, .*: save the weights as float32")

    def test_whole_numbers_of_a_quantized_network(self, give, weights):
        answer = give({**weights, "0.weight": np.ones((6, 1, 5, 5), dtype=np.int8)})
        self.refused(answer, r"0\.weight is int8, as of a quantized network: save it in floats$")

    def test_weights_of_keras(self, give, weights):
        turned = {n: a.T if a.ndim == 2 else a for n, a in weights.items()}
        self.refused(
            give(turned),
            r"7\.weight with shape \(144, 120\), .* with shape \(120, 144\): it is transposed, as TensorFlow",
        )
        fc1 = {f"fc.{name}": array for name, array in turned.items()}
        with pytest.raises(
            cnn.CheckpointError, match=r"7\.weight \(120, 144\); fc\.7\.weight has it transposed"
        ):
            matched(fc1, {name: array.shape for name, array in weights.items()})
        keras = {name.replace("weight", "kernel"): array for name, array in weights.items()}
        self.refused(
            give(keras), r"0\.kernel is a name of Keras or Flax, which lay out weights in another order"
        )

    def test_names_that_do_not_tell_the_order(self):
        state = {name: np.zeros((4, 4)) for name in ("encoder.weight", "decoder.weight")}
        with pytest.raises(cnn.CheckpointError, match=r"'encoder.weight', 'decoder.weight' have the same"):
            matched(state, {"0.weight": (4, 4), "1.weight": (4, 4)})

    @pytest.mark.parametrize(
        ("name", "start", "said"),
        [
            ("w.pt", b"PK\x03\x04" + bytes(40), r"is .*torch\.load\('w\.pt'.*'w\.safetensors'\)"),
            ("w.pth", b"\x80\x02\x8a\x0a", r"is a file of torch\.save .*which could run code"),
            ("w.bin", b"\x80\x04\x95", r"is a file of torch\.save"),
            ("w.npz", b"PK\x05\x06" + bytes(18), r"is an archive without arrays"),
            ("w.zip", b"PK\x03\x04" + bytes(40), r"is an archive without arrays"),
            ("w.model", b"", "is empty: copy or download it again"),
            ("w.keras", b"PK\x03\x04" + bytes(40), r"is a file of Keras"),
            ("w.h5", b"\x89HDF\r\n\x1a\n", r"is a file of Keras"),
            ("w.tflite", b"\x1c\0\0\0TFL3", r"is a file of Keras or TensorFlow"),
            ("w.weights", b"\x08\x08\x12\x05xpcnn", r"is an ONNX file, to be named w\.onnx: make a run"),
            ("w.gguf", b"GGUF\3\0\0\0", r"is a GGUF file"),
            ("w.npy", b"\x93NUMPY\1\0", r"is a single array"),
            ("w.gz", b"\x1f\x8b\x08", r"is compressed"),
            ("w.json", b'{"metadata": {}}', r"is a text in JSON"),
            ("w.safetensors", b"version https://git-lfs.github.com/spec/v1", r"is a Git LFS pointer"),
            ("w.html", b"<!DOCTYPE html>", r"is a web page"),
        ],
    )  # fmt: skip
    def test_another_kind_of_file_is_named(self, tmp_path, name, start, said):
        (tmp_path / name).write_bytes(start)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            with pytest.raises(cnn.CheckpointError, match=f"^{re.escape(name)} {said}"):
                cnn.load(name)

    def test_no_safetensors_file(self, command, own_data):
        Path("model.pt").write_bytes(b"PK\x03\x04" + bytes(100))
        self.refused(command("import", "model.pt", "--data", own_data), r"model\.pt is a file of torch\.save")
        self.refused(command("import", "nowhere", "--data", own_data), "the file nowhere does not exist")
        self.refused(
            command("import", ".", "--data", own_data),
            r"\. is not a readable safetensors file: this is a folder",
        )

    def test_a_disk_that_is_full(self, give, weights, monkeypatch):
        def full(self, path):
            assert path.parent.is_dir()
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(cnn.Sequential, "save", full)
        self.refused(give(weights), r"run/model\.safetensors: No space left on device")

    def test_a_folder_that_exists_is_left_alone(self, give, weights):
        Path("run").mkdir()
        Path("run", "mine").write_text("")
        code, _, err = give(weights)
        assert (code, [path.name for path in Path("run").iterdir()]) == (2, ["mine"])
        assert "the output folder run exists: give --out another name" in err
