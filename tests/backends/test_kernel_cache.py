"""The machine code of compiled kernels is cached for the next process, or it is said that it is not."""

import errno
import os
import shutil
import sys
import time
from importlib import import_module
from itertools import product
from zipfile import ZipFile

import numpy as np
import platformdirs
import pytest

pytest.importorskip("numba")

from backends import cache
from backends.cpu.compiled import jit, kernel_cache
from backends.cpu.compiled.jit import Kernel, Numbers
from backends.cpu.compiled.kernel_cache import stamp

STAMP = b"this code"


def double(out: Numbers, part: int, parts: int):
    out[0] *= 2


def compile_and_run(dtype="float64"):
    """Whether a new kernel had to be compiled."""
    before, out = jit.clock.seconds, np.array([3], dtype)
    Kernel(double)(out.dtype, (out,))
    assert out == [6]
    return jit.clock.seconds > before


@pytest.fixture(autouse=True)
def use_stamp(monkeypatch):
    """``use_stamp(code)`` gives the kernel above another state of its code."""

    def use(code):
        monkeypatch.setattr(kernel_cache, "stamp", lambda module: code)

    use(STAMP)
    return use


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for kernels, and what is said of it."""
    made = kernel_cache.KernelFolder(str(tmp_path / "cache"))
    made.said = []
    made.say = made.said.append
    monkeypatch.setattr(kernel_cache, "folder", made)
    return made


def test_what_is_on_disk_is_not_compiled_again(folder):
    assert compile_and_run()
    assert not compile_and_run()
    assert compile_and_run("float32")
    assert not compile_and_run()
    assert len(list(folder.path.iterdir())) == 2
    assert not folder.said


def test_another_state_of_the_code_is_compiled_and_cached_next_to_it(folder, use_stamp):
    assert compile_and_run()
    use_stamp(b"other code")
    assert compile_and_run()
    use_stamp(STAMP)
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

    monkeypatch.setattr(kernel_cache._CacheFiles, "_save_data", full)
    assert folder.status == "they are cached for the next time"
    assert compile_and_run()
    assert compile_and_run("float32")
    assert folder.said == [
        "note: some compiled kernels are not cached; they cannot be cached "
        "(No space left on device): set NUMBA_CACHE_DIR to a writable folder"
    ]


def test_a_folder_that_cannot_be_made_is_named_and_everything_works(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    folder = kernel_cache.KernelFolder(str(tmp_path / "file"))
    monkeypatch.setattr(kernel_cache, "folder", folder)
    assert compile_and_run()
    assert compile_and_run()
    assert folder.status == (
        f"they cannot be cached (Not a directory: {tmp_path}/file/xpcnn/kernels): "
        "set NUMBA_CACHE_DIR to a writable folder"
    )


def test_a_user_without_a_home_gets_no_folder_named_tilde(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")
    assert kernel_cache.KernelFolder(None).reason == "this user has no home folder"
    assert not list(tmp_path.iterdir())


def test_code_that_cannot_be_read_is_not_mistaken_for_other_code(folder, use_stamp):
    use_stamp(None)
    assert compile_and_run()
    assert compile_and_run()
    assert "(their source code cannot be read)" in folder.status


def test_kernels_are_cached_in_the_users_cache_folder():
    named = kernel_cache.numba.config.CACHE_DIR
    assert kernel_cache.KernelFolder(named).path == kernel_cache.folder.path
    assert kernel_cache.KernelFolder("").path == cache.user_folder() / "kernels"


def test_what_has_not_been_used_for_a_month_is_removed_once_a_new_kernel_is_cached(folder):
    def used(path, days):
        then = time.time() - days * 24 * 3600
        os.utime(path, (then, then))

    ages = {"old.nbc": 40, "recent.nbc": 20, "notes.txt": 40, "of_an_earlier_version": 40, "still_in_use": 20}
    for name, days in ages.items():
        path = folder.path / name
        path.touch() if path.suffix else path.mkdir()
        used(path, days)
    assert compile_and_run()
    (kernel,) = folder.path.glob("*double*")
    assert set(folder.path.iterdir()) == {
        kernel, *(folder.path / name for name in ("recent.nbc", "notes.txt", "still_in_use"))
    }  # fmt: skip
    used(kernel, 40)
    assert not compile_and_run()
    assert time.time() - kernel.stat().st_mtime < 3600  # loading it is using it


def test_kernels_whose_folder_another_process_has_removed_are_cached_again(folder):
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
        monkeypatch.setattr(kernel_cache, "folder", kernel_cache.KernelFolder(str(tmp_path / name)))
        return kernel_cache.folder.path

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


class TestStamp:
    """What the code of a module's kernels is, in a folder or in a zip file."""

    @pytest.fixture
    def stamp_of(self, tmp_path, monkeypatch):
        """``stamp_of(module, zipped, **code)`` -> the stamp of a module of a package of these modules."""
        stamp.cache_clear()

        def make(module, zipped=False, **code):
            number = len(list(tmp_path.iterdir()))
            files = {"__init__": "", "inner/__init__": "", "other": "o = 1", "inner/first": "a = 1"} | code
            place = tmp_path / str(number)
            if zipped:
                with ZipFile(place, "w") as archive:
                    for file, text in files.items():
                        archive.writestr(f"loops/{file}.py", text)
            else:
                for file, text in files.items():
                    (place / "loops" / file).parent.mkdir(parents=True, exist_ok=True)
                    (place / "loops" / f"{file}.py").write_text(text)
            with monkeypatch.context() as patch:
                patch.syspath_prepend(place)
                import_module(f"loops.inner.{module}")
                try:
                    return stamp(f"loops.inner.{module}")
                finally:
                    stamp.cache_clear()
                    kernel_cache._read.cache_clear()
                    for name in [name for name in sys.modules if name.startswith("loops")]:
                        del sys.modules[name]

        return make

    def test_is_the_same_wherever_the_module_lies(self, stamp_of):
        assert stamp_of("first") == stamp_of("first", zipped=True) is not None

    @pytest.mark.parametrize("zipped", [False, True])
    def test_changes_with_the_module_and_with_those_of_its_package_that_it_imports(self, stamp_of, zipped):
        code = {
            "inner/second": "from loops.inner.first import a",
            "inner/third": "from loops.inner import second",
            "inner/apart": "",
        }
        before = stamp_of("third", zipped, **code)
        assert stamp_of("third", zipped, **code | {"inner/apart": "b = 1", "other": "o = 2"}) == before
        for name in ("inner/first", "inner/second", "inner/third"):
            changed = code | {name: f"{code.get(name, 'a = 1')}  # changed"}
            assert stamp_of("third", zipped, **changed) != before

    def test_changes_with_what_it_imports_from_elsewhere_in_the_project(self, stamp_of):
        code = {"inner/second": "from loops.other import o"}
        assert stamp_of("second", **code) != stamp_of("second", **code, other="o = 2")

    def test_of_code_that_cannot_be_read_is_none(self):
        assert stamp("sys") is None
