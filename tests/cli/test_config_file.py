"""``--config``: settings from TOML or from another run."""

import json
from pathlib import Path

import pytest
from helpers.small_run import SMALL


class TestConfigFile:
    def test_every_flag_can_come_from_toml(self, command, own_data, tmp_path):
        (tmp_path / "mine.toml").write_text(
            'model = "notebook"\nepochs = 1\nbatch-size = 16\nlearning_rate = 0.03\nreport = false\n'
            f'classes = ["bright", "dark"]\ndata = "{own_data}"\ndevice = "cpu"\nout = "run"\njson = true\n'
        )
        code, out, err = command("train", "--config", "mine.toml")
        assert code == 0, err
        assert json.loads(out)["run"] == "run"
        config = json.loads(Path("run/config.json").read_text())
        assert (config["batch_size"], config["learning_rate"]) == (16, 0.03)
        assert config["class_names"] == ["bright", "dark"]

    def test_flags_win_over_the_file(self, command, own_data, tmp_path):
        (tmp_path / "mine.toml").write_text("batch-size = 16\nseed = 3\n")
        arguments = ("--config", "mine.toml", *SMALL, "--data", own_data, "--batch-size", 8, "--out", "run")
        assert command("train", *arguments)[0] == 0
        config = json.loads(Path("run/config.json").read_text())
        assert (config["batch_size"], config["seed"]) == (8, 3)

    @pytest.mark.parametrize("given", ["run/config.json", "run"])
    def test_a_runs_own_config_starts_the_same_run_again(self, command, own_data, tmp_path, given):
        flags = ("--optimizer", "adamw", "--classes", "bright,dark", "--per-class", 20, "--seed", 5)
        assert command("train", *SMALL, "--data", own_data, *flags, "--out", "run")[0] == 0
        code, _, err = command("train", "--config", given, "--out", "again", "--no-report")
        assert code == 0, err
        first, again = (tmp_path / name / "model.safetensors" for name in ("run", "again"))
        assert first.read_bytes() == again.read_bytes()
        assert (tmp_path / "run/config.json").read_text() == (tmp_path / "again/config.json").read_text()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "epocs = 3",
                "mine.toml: unknown flag 'epocs': expected one of accumulate, augment, base, batch-size",
            ),
            ("config = 'other.toml'", "mine.toml: unknown flag 'config'"),
            ("epochs = ", "mine.toml is no TOML"),
            ("seed = {a = 1}", "mine.toml: seed is {'a': 1}, which is refused"),
            ("epochs = 'three'", "mine.toml: epochs is 'three', which is refused: "),
            ("epochs = 2.5", "mine.toml: epochs is 2.5, which is refused: "),
            ("epochs = true", "mine.toml: epochs is True, which is refused: "),
            ("batch-size = 1\nbatch_size = 2", "mine.toml: batch_size is given twice"),
            ("model = 'resnet'", "unknown model 'resnet'"),
        ],
    )
    def test_mistakes_in_it_are_named(self, command, tmp_path, text, message):
        (tmp_path / "mine.toml").write_text(text)
        code, out, err = command("train", "--config", "mine.toml")
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}"), err
        assert err.count("\n") == 1

    def test_a_file_that_is_not_there_is_named(self, command):
        code, _, err = command("train", "--config", "nowhere.toml")
        assert code == 2
        assert err == "error: --config nowhere.toml cannot be read: No such file or directory\n"
