"""The report as its reader gets it: what the page has, what it never has, and what it is made from."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT
from helpers.small_run import NAMES, SHAPE, Page, make_run

import backends
import cnn
from cnn.data.preprocessing import Preprocessing
from cnn.runs import build, recipes
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog
from cnn.runs.report import Evaluation, compare_runs, examine, write_report
from cnn.runs.report.figures import confusion, layer_times, mistakes
from cnn.runs.report.record import RunRecord
from cnn.support.drawing import style
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.text import duration, percent, printable, short

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

PICTURES = ["curves", "confusion", "mistakes", "filters", "weights", "activations", "layer_times"]


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    return Page(write_report(finished[0], tmp_path_factory.mktemp("page")).page)


def descriptions(page):
    """What is said of each picture, by its title."""
    titles = [picture.partition("</h3>")[0] for picture in page.source.split("<figure>\n<h3>")[1:]]
    return dict(zip(titles, (svg["aria-label"] for svg in page.all("svg")), strict=True))


class TestContents:
    def test_every_section_is_there(self, page):
        for heading in (
            *("Training", "Test", "Network", "Configuration and environment"),
            *("Loss and accuracy", "Epochs", "Confusion matrix", "Worst mistakes", "First-layer filters"),
            *("Weights", "Activations", "Time per layer", "Layers", "Configuration", "Environment"),
        ):
            assert heading in page.texts, heading
        assert "cnn train --config RUN" in page.texts

    def test_captions_say_what_is_not_self_evident(self, page):
        for sentence in (
            "A diagonal cell is darker if more images of its class are classified correctly",
            "gave to the true class (is) and to the class that it predicted (said)",
            "the line on it reaches from the first to the third quartile",
        ):
            assert sentence in " ".join(page.text.split()), sentence

    def test_the_result_stands_on_top(self, page, finished):
        _, network, test_set = finished
        metrics = [cnn.metrics.F1(), cnn.metrics.CalibrationError()]
        result = cnn.evaluate(network, test_set, metrics=metrics)
        top = page.text[: page.text.index("Training")]
        assert "notebook on <b>.npz" in top
        assert (
            f"test accuracy {result['accuracy']:.2%} test loss {result['loss']:.4f} "
            f"test F1 {result['f1']:.4f} test calibration error {result['calibration_error']:.4f} "
            "test images 60"
        ) in top
        for row in result["per_class"]:
            rates = " ".join(percent(row[rate]) for rate in ("precision", "recall", "f1"))
            if not row["precision"]:
                rates = rates.replace("0.00%", "-", 1)  # the class is never predicted
            assert f"{row['count']} {rates}" in page.text
        assert re.search(r"epochs 2 training time [\d.]+ s images per second [\d,]+ device cpu", top)

    def test_the_epochs_are_those_of_the_metrics(self, page, run):
        for line in run.metrics.read_text().splitlines()[1:]:
            _, loss, accuracy, *_ = line.split(",")
            assert f"{float(loss):.4f} {float(accuracy):.2%}" in page.text

    def test_configuration_environment_and_layers_are_told(self, page, run):
        assert "batch size 30" in page.text
        assert json.loads(run.environment.read_text())["system"] in page.text
        assert re.search(r"0 Conv2D 5 . 10 . 10 545 4,500 \d+\.\d{3} \d+\.\d{3} 1 ReLU", page.text)

    def test_the_preprocessing_is_told(self, page, run):
        assert re.search(r"image size 12 . 12 channels 1 \(grey\)", page.text)
        assert "numbers from 0 to 255 become 0 to 1" in page.text
        network = cnn.load(run.weights, device="cpu")
        network.preprocessing = Preprocessing((0.25,), (0.125,), "letterbox")
        network.save(run.weights)
        again = Page(write_report(run).page)
        assert "letterbox: fitted with white bars" in again.text
        assert "mean 0.25 std 0.125" in again.text

    def test_the_recipe_is_named_with_what_was_changed(self, run):
        config = replace(recipes.read("mnist-fast").config, model="notebook", batch_size=7)
        run.write_config(config, SHAPE, NAMES)
        text = Page(write_report(run).page).text
        assert "recipe mnist-fast with --model notebook --batch-size 7 device" in text

    def test_all_rows_of_the_layers_have_the_same_cells(self, tmp_path):
        folder, network, test_set = make_run(
            tmp_path / "run", model="resnet8", epochs=1
        )  # Residual has no time
        examine(network, test_set, 30).save(folder.evaluation)
        source = write_report(folder).page.read_text(encoding="utf-8")
        table = source.partition("<caption>Layers</caption>")[2].partition("</table>")[0]
        assert {row.count("<t") for row in table.partition("<tbody>")[2].split("</tr>")[:-1]} == {7}

    def test_it_is_a_whole_page_for_every_screen(self, page):
        assert page.source.startswith("<!DOCTYPE html>")
        assert page.all("html") == [{"lang": "en"}]
        assert {"charset": "utf-8"} in page.all("meta")
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
        assert "prefers-color-scheme: dark" in page.source

    def test_pictures_are_files_too(self, run):
        report = write_report(run)
        assert [path.stem for path in report.pictures] == PICTURES
        assert report.page == run.path / "report.html"
        for path in report.pictures:
            with Image.open(path) as picture:
                assert picture.width == 600  # 4 inches at 150 dots
                assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


class TestPictures:
    """Each is an SVG in the page that says in words and figures what it shows."""

    def test_each_is_described_with_its_figures(self, page, finished):
        _, network, test_set = finished
        predicted = network.predict(test_set.images).argmax(axis=1)
        right = int((predicted == test_set.labels).sum())
        told = descriptions(page)
        assert len(told) == len(page.all("svg")) == len(PICTURES)
        assert all(svg["role"] == "img" for svg in page.all("svg"))
        assert f"{right} of 60 test images are classified correctly" in told["Confusion matrix"]
        assert re.search(r"training from \d\.\d{4} to \d\.\d{4}, test from", told["Loss and accuracy"])
        assert re.search(r"2 epochs\.$", told["Loss and accuracy"])
        assert f"taken for {printable(NAMES[2])}" in told["Worst mistakes"]
        weights = network.state_dict()["0.weight"]
        assert f"from {weights.min():.3g} to {weights.max():.3g}" in told["First-layer filters"]
        for title in ("Weights", "Activations"):
            assert "0 Conv2D from" in told[title]
        assert re.search(r"\d ms in all 8 layers; the slowest is \d \w+ with", told["Time per layer"])

    def test_they_follow_the_colours_of_the_page(self, page):
        assert page.source.count("currentColor") > 100
        assert "#1b1d1f" not in page.source.partition("<svg")[2]
        backgrounds = [a for a in page.all("path") if "fill: #ffffff" in a.get("style", "")]
        assert not backgrounds

    def test_text_stays_text(self, page):
        assert len(page.all("text")) > 100
        assert {"epoch", "true class", "predicted class", "output other than 0"} <= set(page.texts)
        assert "ms for a batch of 30" in page.texts

    def test_ids_are_unique_and_every_reference_finds_its_own(self, page):
        ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
        assert len(ids) == len(set(ids)) > 10
        used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page.source))
        assert used == set(ids)

    def test_a_matrix_of_many_classes_and_one_epoch_are_drawn(self, tmp_path):
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
        data = cnn.data.Dataset(images, np.arange(60) % 30, 30)
        config = Config(model="notebook", epochs=1)
        network = build.make_network(config, (3, 8, 8), 30, backends.get("cpu"))
        folder = RunFolder(tmp_path / "run")
        cnn.fit(network, data, callbacks=[RunLog(folder, config, data.classes)])
        examine(network, data).save(folder.evaluation)
        told = descriptions(Page(write_report(folder).page))
        assert "Confusion matrix of 30 classes" in told["Confusion matrix"]
        assert re.search(
            r"training \d\.\d{4}\. Accuracy by epoch: training [\d.]+%\. 1 epoch\.$",
            told["Loss and accuracy"],
        )
        assert "as colours" in told["First-layer filters"]

    def test_nothing_of_matplotlib_is_changed_for_others(self, run):
        import matplotlib

        before = dict(matplotlib.rcParams)
        write_report(run)
        assert dict(matplotlib.rcParams) == before


class TestSafety:
    """One file that opens offline, whatever the names in it are."""

    def test_nothing_is_fetched_from_anywhere(self, page):
        assert "http:" not in page.source
        assert "https:" not in page.source
        for tag, attributes in page.elements:
            assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                if name in {"src", "href", "xlink:href", "action", "data"}:
                    assert re.match(r"#|data:image/png;base64,", value), (tag, name, value[:60])
        styles = page.source[page.source.index("<style>") : page.source.index("</style>")]
        assert "url(" not in styles
        assert "@import" not in styles

    def test_hostile_names_are_only_names(self, page, finished):
        assert "<script" not in page.source
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.source
        shown = [printable(name) for name in NAMES]
        assert ", ".join(shown) in page.text
        assert "<b>" not in page.source
        assert "\u202e" not in page.source
        assert any(name in svg["aria-label"] for svg in page.all("svg") for name in shown)

    def test_a_formula_in_a_name_is_not_set(self, page):
        assert short(printable(NAMES[2]), 12) in page.texts


class TestFilesAlone:
    """A report needs the run's folder and nothing else."""

    def test_equal_files_give_equal_reports_elsewhere(self, run, tmp_path, finished):
        here = write_report(run)
        (tmp_path / "far" / "away").mkdir(parents=True)
        there = shutil.copytree(finished[0].path, tmp_path / "far" / "run")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "CNN_DEVICE": "cpu"}
        (tmp_path / "far" / "away" / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 20\n")
        done = subprocess.run(
            [sys.executable, "-m", "cnn", "report", "../run", "--json"],
            cwd=tmp_path / "far" / "away", env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        written = json.loads(done.stdout)
        assert written["report"] == "../run/report.html"
        assert (there / "report.html").read_bytes() == here.page.read_bytes()
        for path in here.pictures:
            assert (there / "pictures" / path.name).read_bytes() == path.read_bytes(), path.name
        assert len(written["pictures"]) == len(here.pictures)

    def test_a_run_that_was_interrupted_has_what_there_is(self, run):
        run.evaluation.unlink()
        page = Page(write_report(run).page)
        assert "The run has no evaluation.safetensors" in page.text
        assert "Confusion matrix" not in page.texts
        assert "Loss and accuracy" in page.texts
        assert "First-layer filters" in page.texts
        last = run.metrics.read_text().splitlines()[-1].split(",")
        assert f"test accuracy {float(last[-1]):.2%}" in page.text

    def test_weights_from_elsewhere_have_no_curves(self, run):
        run.metrics.unlink()
        run.environment.unlink()
        page = Page(write_report(run).page)
        assert "The run has no metrics.csv" in page.text
        assert "The run has no environment.json" in page.text
        assert "Loss and accuracy" not in page.texts
        assert "Confusion matrix" in page.texts

    def test_a_run_that_hardly_began_still_has_a_page(self, run):
        for path in (run.metrics, run.weights, run.evaluation):
            path.unlink()
        page = Page(write_report(run).page)
        assert "There are no weights to show: the run has no model.safetensors" in page.text
        assert page.all("svg") == []

    def test_a_test_without_a_mistake_says_so(self, run, finished):
        _, network, test_set = finished
        predicted = network.predict(test_set.images).argmax(axis=1)
        examine(network, cnn.data.Dataset(test_set.images, predicted, 3)).save(run.evaluation)
        page = Page(write_report(run).page)
        assert "every test image is classified correctly" in page.text
        assert "Worst mistakes" not in page.texts
        assert "60 of 60 test images are classified correctly." in page.source

    @pytest.mark.parametrize(
        ("name", "contents"),
        [
            ("metrics.csv", b"epoch,loss\n1,0.5\n"),
            ("metrics.csv", b"epoch,loss,accuracy,seconds,images_per_second\n1,a,0.5,1,1\n"),
            ("metrics.csv", b"epoch,loss,accuracy,seconds,images_per_second\n1,2\n"),
            ("metrics.csv", b"epoch,loss,accuracy,seconds,images_per_second\n1,2,3,4,5,6\n"),
            ("metrics.csv", b"epoch,loss,accuracy,seconds,images_per_second,validation_loss\n1,1,1,1,1,1\n"),
            ("metrics.csv", b"\xff\xfe\x00"),
            ("config.json", b"{"),
            ("environment.json", b"[1]"),
            ("environment.json", b"{"),
            ("model.safetensors", b"nothing"),
            ("evaluation.safetensors", b"nothing"),
        ],
    )
    def test_a_damaged_file_is_named_in_a_sentence(self, run, name, contents):
        (run.path / name).write_bytes(contents)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
            write_report(run)
        assert "\n" not in str(caught.value)
        assert not (run.path / "report.html").exists()

    def test_an_evaluation_of_another_run_is_refused(self, run):
        config = json.loads(run.config.read_text())
        run.weights.unlink()
        run.config.write_text(json.dumps(config | {"class_names": ["a", "b"]}))
        with pytest.raises(CheckpointError, match=r"evaluation\.safetensors has 3 classes.*another run,"):
            write_report(run)

    @pytest.mark.parametrize(("epochs", "folded"), [(20, 0), (21, 1)])
    def test_a_long_table_of_epochs_is_folded_and_says_how_long_it_is(self, run, epochs, folded):
        run.evaluation.unlink()  # only the curves are drawn
        run.weights.unlink()
        head, line = run.metrics.read_text().splitlines()[:2]
        rest = line.partition(",")[2]
        run.metrics.write_text("\n".join([head, *(f"{n},{rest}" for n in range(1, epochs + 1))]) + "\n")
        page = Page(write_report(run).page)
        assert page.texts.count(f"Show all {epochs} epochs as a table") == folded
        assert page.texts.count("Epochs") == 1


LONG = [f"the same beginning of all names, number {number}" for number in range(200)]
WIDE = [
    "日本語の長い名前の一",
    "日本語の長い名前の二",
    "می\u200cخواهم که این نام",  # noqa: RUF001
    "👨\u200d👩\u200d👧 family",
    "a",
]


class TestClassNames:
    @pytest.fixture
    def matrix(self):
        def draw(names, counts=None):
            counts = np.eye(len(names), dtype=np.int64) if counts is None else counts
            with style():
                return confusion(SimpleNamespace(confusion=counts, count=int(counts.sum())), names).figure

        return draw

    @pytest.mark.parametrize("names", [LONG, WIDE, ["犬", "猫"], ["W" * 30, "W" * 29 + "M"]])
    def test_labels_differ_and_everything_is_inside_the_picture(self, matrix, names):
        figure = matrix(names)
        (axes,) = figure.axes
        for axis in (axes.xaxis, axes.yaxis):
            shown = [label.get_text() for label in axis.get_ticklabels()]
            assert len(set(shown)) == len(shown)
            with style():  # which is silent about letters that the font lacks
                box, whole = axis.get_tightbbox(), figure.bbox
            assert box.x0 >= whole.x0 - 1
            assert box.y0 >= whole.y0 - 1
            assert box.x1 <= whole.x1 + 1

    def test_the_colour_of_the_diagonal_is_the_share_that_is_right(self, matrix):
        (image,) = matrix(["a", "b", "c"], np.array([[0, 5, 0], [2, 2, 0], [0, 0, 7]])).axes[0].images
        none, half, all_ = image.get_array()[np.diag_indices(3)][:, 3]
        assert none == 0
        assert half == all_ / 2

    def test_of_many_classes_some_are_named(self, matrix):
        names = [f"class {label:02}" for label in range(100)]
        (axes,) = matrix(names, np.ones((100, 100), int)).axes
        assert [text.get_text() for text in axes.get_xticklabels()] == names[::9]


class TestMistakes:
    @pytest.fixture
    def texts(self, finished):
        """The texts next to the images for classes with such names, and the figure."""

        def draw(names):
            with style():
                figure = mistakes(Evaluation.load(finished[0].evaluation), names).figure
            return figure, figure.axes[0].texts

        return draw

    @pytest.mark.parametrize(
        "names",
        [["a", "b", "c"], ["beach", "forest", "mountain"], [f"Süßwassermuschel {n}" * 3 for n in "abc"]],
    )
    def test_no_text_is_on_another_or_outside(self, texts, names):
        figure, shown = texts(names)
        boxes = [text.get_window_extent() for text in shown]
        for place, box in enumerate(boxes):
            assert -1 <= box.x0 < box.x1 <= figure.bbox.width + 1
            assert -1 <= box.y0 < box.y1 <= figure.bbox.height + 1
            assert not any(box.overlaps(other) for other in boxes[:place])

    def test_long_names_are_next_to_the_image_and_still_different(self, texts):
        _, shown = texts([f"Süßwassermuschel aus dem See {n}" for n in "abc"])
        pairs = {tuple(text.get_text().split("\n")[1::3]) for text in shown}
        assert all(right != wrong for right, wrong in pairs)


def test_the_times_of_layers_say_what_their_lines_are(finished):
    with style():
        (picture,) = layer_times(Evaluation.load(finished[0].evaluation))
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["forward", "backward", "quartiles"]


class TestSeveralRuns:
    @pytest.fixture
    def other(self, tmp_path):
        return make_run(tmp_path / "_second", epochs=3, seed=4)[0]

    def test_they_are_compared(self, run, other, tmp_path):
        report = compare_runs([run, other], tmp_path / "out")
        page = Page(report.page)
        assert report.page == tmp_path / "out" / "report.html"
        assert [path.name for path in report.pictures] == ["curves.png"]
        (svg,) = page.all("svg")
        assert re.search(r"copy: test loss from .* to .*_second: test loss from", svg["aria-label"])
        assert "1: copy" in page.texts
        assert page.texts.count("2: _second") == 3  # in the picture and both tables
        differing = page.text[page.text.index("Settings that differ") :]
        assert "epochs seed 1: copy 2 0 2: _second 3 4" in differing  # a row for each run
        assert "batch size" not in differing

    def test_the_best_of_each_figure_is_marked_if_the_data_are_the_same(self, run, other, tmp_path):
        losses = [RunRecord.read(folder).result["test loss"] for folder in (run, other)]
        cells = Page(compare_runs([run, other], tmp_path / "out").page).all("td")
        marked = ["best" in cell.get("class", "") for cell in cells if cell.get("data-name") == "test loss"]
        assert marked == [loss == min(losses) for loss in losses]
        config = json.loads(other.config.read_text())
        other.config.write_text(json.dumps(config | {"data": "mnist"}))
        page = Page(compare_runs([run, other], tmp_path / "other data").page)
        assert not any("best" in cell.get("class", "") for cell in page.all("td"))

    def test_each_value_has_its_name_for_narrow_screens(self, run, other, tmp_path):
        page = Page(compare_runs([run, other], tmp_path / "out").page)
        headings = [text for text in page.texts if text in ("test accuracy", "device", "seed")]
        names = [cell["data-name"] for cell in page.all("td") if "data-name" in cell]
        assert headings == ["test accuracy", "device", "seed"]
        assert all(names.count(name) == 2 for name in headings)

    def test_runs_of_one_name_are_told_apart(self, run, tmp_path):
        twin = RunFolder(shutil.copytree(run.path, tmp_path / "far" / "copy"))
        page = Page(compare_runs([run, twin, twin], tmp_path / "out").page)
        assert f"1: {run.path}" in page.texts
        assert f"2: {twin.path} (2)" in page.texts
        assert "All runs have the same settings." in page.texts

    def test_a_run_without_epochs_is_left_out_of_the_curves(self, run, other, tmp_path):
        run.metrics.unlink()
        (svg,) = Page(compare_runs([run, other], tmp_path / "out").page).all("svg")
        assert "copy" not in svg["aria-label"]
        other.metrics.unlink()
        assert compare_runs([run, other], tmp_path / "out").pictures == []


class TestCommand:
    @pytest.fixture
    def report(self, command, run):  # in the folder that the run is in
        return partial(command, "report")

    def test_it_prints_where_the_page_is(self, report, run):
        run.evaluation.unlink()  # only the curves are drawn
        run.weights.unlink()
        assert report("copy") == (0, "copy/report.html\n", "")
        assert Path("copy/report.html").exists()
        assert report("copy", "--out", "a/b") == (0, "a/b/report.html\n", "")
        assert Path("a/b/pictures/curves.png").exists()

    def test_several_go_beside_the_first(self, report, run):
        shutil.copytree("copy", "elsewhere/twin")
        code, out, err = report("copy", "elsewhere/twin", "--json")
        assert (code, err) == (0, "comparing 2 runs\n")
        written = json.loads(out)
        assert Path(written["report"]) == run.path.parent / "comparison" / "report.html"
        assert all(Path(path).exists() for path in [written["report"], *written["pictures"]])

    def test_mistakes_are_one_sentence(self, report, run):
        assert report("nowhere")[0] == 2
        assert re.fullmatch(r"error: nowhere is not the folder of a run.*\n", report("nowhere")[2])
        run.metrics.write_text("nonsense\n1\n")
        assert re.fullmatch(r"error: copy/metrics\.csv cannot be read.*\n", report("copy")[2])
        Path("file").touch()
        assert re.fullmatch(r"error: .*\n", report("copy", "--out", "file")[2])

    def test_what_is_missing_is_said_with_what_to_install(self, run, monkeypatch):
        monkeypatch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(ArgumentError, match=r"jinja2 is needed to make a report.*pip install jinja2"):
            write_report(run)


def test_figures_are_written_for_people():
    assert [percent(share) for share in (0.98444, 0.00001, 0, 1)] == ["98.44%", "<0.01%", "0.00%", "100.00%"]
    assert [duration(seconds) for seconds in (0.0321, 11.64, 245, 7380)] == [
        "0.032 s",
        "11.6 s",
        "4 min 5 s",
        "2 h 3 min",
    ]
    assert short("a long name", 6) == "a lon…"


def test_several_runs_never_take_the_place_of_ones_own_report(run, finished):
    with pytest.raises(ArgumentError, match="is the folder of a run, which has its own report: name another"):
        compare_runs([run, finished[0]], run.path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2\n", "line 2 has a different number of cells than the first"),
        ("1,nan,0.5,0.1,1,100\n", "a value in it is not finite"),
        ("1,1e308,0.5,0.1,1,100\n", "too large"),
        ("1,x,0.5,0.1,1,100\n", "could not convert"),
    ],
)
def test_a_damaged_line_of_metrics_is_named(run, line, message):
    run.metrics.write_text("epoch,loss,accuracy,learning_rate,seconds,images_per_second\n" + line)
    with pytest.raises(CheckpointError, match=rf"metrics\.csv cannot be read \(.*{message}"):
        write_report(run)
