"""The machine code of compiled kernels is kept for the next process, or it is said that it is not."""

import errno
import os
import shutil
import time
from importlib import invalidate_caches
from itertools import product
from zipfile import ZipFile

import numpy as np
import platformdirs
import pytest

pytest.importorskip("numba")

from backends import cache
from backends.cpu.compiled import jit, kept
from backends.cpu.compiled.jit import Kernel, Numbers

STAMP = b"this code"


def double(out: Numbers, part: int, parts: int):
    out[0] *= 2


def compile_and_run(dtype="float64"):
    """Whether a new kernel had to be compiled."""
    before, out = jit.clock.seconds, np.array([3], dtype)
    Kernel(double)(out.dtype, (out,))
    assert out == [6]
    return jit.clock.seconds > before


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for kernels, and what is said of it."""
    made = kept.KernelFolder(str(tmp_path / "cache"), STAMP)
    made.said = []
    made.say = made.said.append
    monkeypatch.setattr(kept, "folder", made)
    return made


def test_what_is_on_disk_is_not_compiled_again(folder):
    assert compile_and_run()
    assert not compile_and_run()
    assert compile_and_run("float32")
    assert not compile_and_run()
    assert len(list(folder.path.iterdir())) == 2
    assert not folder.said


def test_another_state_of_the_code_is_compiled_and_kept_next_to_it(folder):
    assert compile_and_run()
    folder.stamp = b"other code"
    assert compile_and_run()
    folder.stamp = STAMP
    assert not compile_and_run()


def test_a_damaged_file_is_compiled_again_and_replaced(folder):
    compile_and_run()
    (file,) = folder.path.iterdir()
    file.write_bytes(b"damaged")
    assert compile_and_run()
    assert not compile_and_run()


def test_machine_code_with_a_wrong_bit_is_compiled_again_and_not_run(folder):
    compile_and_run()
    (file,) = folder.path.iterdir()
    data = bytearray(file.read_bytes())
    data[data.index(b".text") + 100] ^= 1
    file.write_bytes(data)
    assert compile_and_run()
    assert not compile_and_run()


def test_a_full_disk_is_noted_once(folder, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept._CacheFiles, "_save_data", full)
    assert folder.outlook == "they are kept for the next time"
    assert compile_and_run()
    assert compile_and_run("float32")
    assert folder.said == [
        "note: some compiled kernels are not kept; they cannot be kept for the next time "
        "(No space left on device): set NUMBA_CACHE_DIR to a writable folder"
    ]


def test_a_folder_that_cannot_be_made_is_named_and_everything_works(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    folder = kept.KernelFolder(str(tmp_path / "file"), STAMP)
    monkeypatch.setattr(kept, "folder", folder)
    assert compile_and_run()
    assert compile_and_run()
    assert folder.outlook == (
        f"they cannot be kept for the next time (Not a directory: {tmp_path}/file/xpcnn/kernels): "
        "set NUMBA_CACHE_DIR to a writable folder"
    )


def test_a_user_without_a_home_gets_no_folder_named_tilde(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")
    assert kept.KernelFolder(None, STAMP).obstacle == "this user has no home folder"
    assert not list(tmp_path.iterdir())


def test_code_that_cannot_be_read_is_not_mistaken_for_other_code(tmp_path):
    assert "cannot be read" in kept.KernelFolder(str(tmp_path), None).outlook
    assert kept.digest("sys") is None


def test_kernels_are_kept_in_the_users_cache_folder():
    named = kept.numba.config.CACHE_DIR
    assert kept.KernelFolder(named, kept.folder.stamp).path == kept.folder.path
    assert kept.KernelFolder("", STAMP).path.parent == cache.user_folder() / "kernels"


def test_what_other_versions_have_not_used_for_a_month_is_removed(tmp_path):
    def used(path, days):
        then = time.time() - days * 24 * 3600
        os.utime(path, (then, then))

    kernels = tmp_path / "xpcnn" / "kernels"
    paths = {name: kept.KernelFolder(str(tmp_path), name).path for name in (b"old", b"recent", b"in use")}
    loose, foreign = kernels / "of_version_0.1.nbc", kernels / "notes.txt"
    for file in (loose, foreign, *(path / "kernel.nbc" for path in paths.values())):
        file.touch()
        used(file, 40)
    used(paths[b"old"], 40)
    used(paths[b"recent"], 20)
    used(paths[b"in use"], 40)
    kept.KernelFolder(str(tmp_path), b"in use")
    assert paths[b"old"].exists()  # only a new version looks
    new = kept.KernelFolder(str(tmp_path), b"new").path
    assert set(kernels.iterdir()) == {paths[b"recent"], paths[b"in use"], new, foreign}
    assert (paths[b"in use"] / "kernel.nbc").exists()


def test_kernels_whose_folder_another_process_has_removed_are_kept_again(folder):
    assert compile_and_run()
    shutil.rmtree(folder.path)
    assert compile_and_run()
    assert not compile_and_run()
    assert not folder.said


def test_kernels_that_two_processes_keep_for_two_dtypes_at_the_same_moment_are_not_confused(
    tmp_path, monkeypatch
):
    """Both find an empty folder. If both write a file, either may be the last to write it."""

    def use(name):
        monkeypatch.setattr(kept, "folder", kept.KernelFolder(str(tmp_path / name), STAMP))
        return kept.folder.path

    mine = use("mine")
    assert compile_and_run("float32")
    theirs = use("theirs")
    assert compile_and_run("float64")
    both = sorted({file.name for file in mine.iterdir()} & {file.name for file in theirs.iterdir()})
    for number, last in enumerate(product((mine, theirs), repeat=len(both))):
        shared = use(f"shared {number}")
        shutil.copytree(mine, shared, dirs_exist_ok=True)
        shutil.copytree(theirs, shared, dirs_exist_ok=True)
        for name, folder in zip(both, last, strict=True):
            shutil.copy(folder / name, shared / name)
        assert not compile_and_run("float32")
        assert not compile_and_run("float64")


def test_code_is_told_apart_wherever_it_lies(tmp_path, monkeypatch):
    """The digest is of what the code is: in a folder or in a zip, of one version or another."""

    def package(name, code, zipped):
        files = {f"{name}/__init__.py": "", f"{name}/loops.py": code, f"{name}/note.txt": name}
        place = tmp_path / f"{name}.zip" if zipped else tmp_path / f"{name}-folder"
        if zipped:
            with ZipFile(place, "w") as archive:
                for file, text in files.items():
                    archive.writestr(file, text)
        else:
            for file, text in files.items():
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).write_text(text)
        monkeypatch.syspath_prepend(place)
        invalidate_caches()
        return kept.digest(name)

    first = package("first_in_a_folder", "a = 1", zipped=False)
    assert first == package("first_in_a_zip", "a = 1", zipped=True) is not None
    assert first != package("second_in_a_zip", "a = 2", zipped=True) is not None
