"""Downloads: mirrors that misbehave, a cache that is damaged, several processes, no network."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from helpers import ROOT
from helpers import mirror as answers
from helpers.mirror import Mirror, redirected, refusing, send, whole
from helpers.small_files import NAMES, TEST_IMAGES, X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, idx, refused, write

import cnn.data
from cnn.data.published import downloads, fashion_mnist, transfer
from cnn.data.published.downloads import Published, PublishedFile
from cnn.runs.setting import absolute
from cnn.support.errors import ArgumentError, DataError

DATA = hashlib.shake_256(b"a small file").digest(3000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder for downloads: one that does not exist yet."""
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def mirror():
    with Mirror() as mirror:
        yield mirror


@pytest.fixture
def other():
    """A second mirror."""
    with Mirror() as mirror:
        yield mirror


@pytest.fixture
def no_network(monkeypatch):
    def blocked(*arguments, **named):
        raise AssertionError("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)


def published(*mirrors, data=DATA, name="file.gz"):
    file = PublishedFile(name, len(data), hashlib.sha256(data).hexdigest())
    urls = tuple(mirror if isinstance(mirror, str) else mirror.url for mirror in mirrors)
    return Published("small", (file,), urls)


def files(cache):
    return sorted(path.name for path in (cache / "small").iterdir())


class TestDownload:
    def test_once_and_then_from_the_cache(self, cache, mirror):
        mirror.answers["file.gz"] = whole(DATA)
        for _ in range(2):
            (path,) = published(mirror).fetch()
            assert path == cache / "small" / "file.gz"
            assert path.read_bytes() == DATA
        assert mirror.requests == ["file.gz"]
        assert files(cache) == ["file.gz"]

    def test_what_is_there_needs_no_network(self, cache, no_network):
        (cache / "small").mkdir(parents=True)
        (cache / "small" / "file.gz").write_bytes(DATA)
        assert published("http://127.0.0.1:9/").fetch()[0].read_bytes() == DATA

    def test_others_may_read_it_as_the_umask_says(self, cache, mirror):
        mirror.answers["file.gz"] = whole(DATA)
        before = os.umask(0o027)
        try:
            (path,) = published(mirror).fetch()
        finally:
            os.umask(before)
        if os.name == "posix":
            assert path.stat().st_mode & 0o777 == 0o640

    def test_only_the_missing_file_of_several_is_asked_for(self, cache, mirror):
        one, two = (published(mirror, data=DATA + byte, name=byte.decode()) for byte in (b"1", b"2"))
        both = Published("small", one.files + two.files, (mirror.url,))
        mirror.answers |= {"1": whole(DATA + b"1"), "2": whole(DATA + b"2")}
        one.fetch()
        assert [path.name for path in both.fetch()] == ["1", "2"]
        assert mirror.requests == ["1", "2"]

    def test_a_mirror_that_does_not_tell_the_length(self, cache, mirror):
        mirror.answers["file.gz"] = answers.without_length(DATA)
        assert published(mirror).fetch()[0].read_bytes() == DATA

    def test_the_users_cache_folder_where_none_is_named(self, monkeypatch, tmp_path):
        platformdirs = pytest.importorskip("platformdirs")
        monkeypatch.setenv("CNN_DATA", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert downloads.cache_folder() == Path(platformdirs.user_cache_dir("xpcnn"))

    def test_where_the_users_cache_folder_cannot_be_told(self, monkeypatch):
        monkeypatch.delenv("CNN_DATA", raising=False)
        monkeypatch.setitem(sys.modules, "platformdirs", None)
        with pytest.raises(ArgumentError, match=r"platformdirs is needed .* if CNN_DATA names none"):
            downloads.cache_folder()

    def test_a_user_without_a_home_is_asked_to_name_a_folder(self, monkeypatch):
        platformdirs = pytest.importorskip("platformdirs")
        monkeypatch.delenv("CNN_DATA", raising=False)
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")
        with pytest.raises(DataError, match=r"no folder for downloads, .* no home .*: name one in CNN_DATA$"):
            downloads.cache_folder()

    def test_a_home_that_nobody_has_is_no_folder_named_tilde(self, monkeypatch):
        monkeypatch.setenv("CNN_DATA", "~nobody-of-that-name/data")
        with pytest.raises(DataError, match=r"CNN_DATA is ~nobody.*, but there is no such home folder"):
            downloads.cache_folder()


FAULTS = {
    "changed": "sends another file (sha256 ",
    "cut_off": "ends after 1,500 of the 3,000 bytes expected",
    "page": "sends a web page instead",
    "long_page": "sends a web page instead",
    "in_a_circle": "HTTP Error 302: The HTTP server returned a redirect error "
    "that would lead to an infinite loop.)",
    "failing": "HTTP Error 503: Service Unavailable",
    "no_http": "SSH-2.0-OpenSSH_9.6",
}
SLOW = ("silent", "stuck", "dripping", "dripping_headers")


class TestMirrors:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_the_next_is_tried(self, cache, mirror, other, fault):
        mirror.answers["file.gz"] = getattr(answers, fault)(DATA)
        other.answers["file.gz"] = whole(DATA)
        assert published(mirror, other).fetch()[0].read_bytes() == DATA
        assert set(mirror.requests) == {"file.gz"}
        assert files(cache) == ["file.gz"]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_what_was_wrong_is_said(self, cache, mirror, fault):
        mirror.answers["file.gz"] = getattr(answers, fault)(DATA)
        with refused(f"{mirror.url}file.gz: {FAULTS[fault]}"):
            published(mirror).fetch()
        assert files(cache) == []

    @pytest.mark.parametrize("fault", SLOW)
    def test_one_that_is_too_slow_is_given_up(self, cache, mirror, fault, monkeypatch):
        monkeypatch.setattr(transfer, "PATIENCE", 0.3)
        mirror.answers["file.gz"] = getattr(answers, fault)(DATA)
        with refused(f"{mirror.url}file.gz: sends less than 65,536 bytes in 0.3 s"):
            published(mirror).fetch()
        assert files(cache) == []

    def test_the_next_is_tried_after_one_that_hangs(self, cache, mirror, other, monkeypatch):
        monkeypatch.setattr(transfer, "PATIENCE", 3)
        mirror.answers["file.gz"] = answers.stuck(DATA)
        other.answers["file.gz"] = whole(DATA)
        assert published(mirror, other).fetch()[0].read_bytes() == DATA

    def test_a_slow_one_may_take_its_time_as_long_as_enough_comes(self, cache, mirror, monkeypatch):
        monkeypatch.setattr(transfer, "PATIENCE", 3)
        monkeypatch.setattr(transfer, "LEAST", 500)

        def answer(mirror, handler):
            send(handler, b"", len(DATA))
            for start in range(0, len(DATA), 500):
                handler.wfile.write(DATA[start : start + 500])
                handler.wfile.flush()
                time.sleep(0.6)

        mirror.answers["file.gz"] = answer
        assert published(mirror).fetch()[0].read_bytes() == DATA

    def test_refused_connection_and_missing_file(self, cache, mirror, other):
        other.answers["file.gz"] = whole(DATA)
        assert published(refusing(), mirror, other).fetch()[0].read_bytes() == DATA

    def test_a_redirect_elsewhere_is_followed(self, cache, mirror, other):
        mirror.answers["file.gz"] = redirected(f"{other.url}moved")
        other.answers["moved"] = whole(DATA)
        assert published(mirror).fetch()[0].read_bytes() == DATA

    def test_a_redirect_to_a_file_of_this_machine_is_not(self, cache, mirror, tmp_path):
        (tmp_path / "own").write_bytes(DATA)
        mirror.answers["file.gz"] = redirected((tmp_path / "own").as_uri())
        with refused("HTTP Error 302: ", "not allowed"):
            published(mirror).fetch()

    def test_one_that_sends_without_end_is_left(self, cache, mirror):
        left = Event()

        def answer(mirror, handler):
            try:
                send(handler, DATA)
                while not mirror.closing.is_set():
                    handler.wfile.write(DATA)
            except OSError:
                left.set()

        mirror.answers["file.gz"] = answer
        with refused("sends more than the 3,000 bytes expected"):
            published(mirror).fetch()
        assert left.wait(30)

    def test_of_a_file_that_is_too_long_one_byte_too_many_is_read(self, cache, monkeypatch):
        asked = []

        class Endless(nullcontext):
            def __enter__(self):
                return self

            def read1(self, size):
                asked.append(size)
                return bytes(size)

        monkeypatch.setattr("urllib.request.urlopen", lambda *arguments, **named: Endless())
        with refused("sends more than the 3,000 bytes expected"):
            published("http://nowhere.test/").fetch()
        assert sum(asked) == 3001

    def test_one_that_was_given_up_is_hung_up_on(self, cache, mirror, monkeypatch):
        monkeypatch.setattr(transfer, "PATIENCE", 0.3)
        left = Event()

        def answer(mirror, handler):
            try:
                answers.dripping(DATA)(mirror, handler)
            except OSError:
                left.set()

        mirror.answers["file.gz"] = answer
        with refused("sends less than"):
            published(mirror).fetch()
        assert left.wait(30)

    def test_all_that_was_tried_stands_in_one_sentence_with_what_to_do(self, cache, mirror, other):
        nobody = refusing()
        other.answers["file.gz"] = answers.cut_off(DATA)
        with pytest.raises(cnn.DataError) as caught:
            published(mirror, nobody, other).fetch()
        path = cache / "small" / "file.gz"
        assert str(caught.value) == (
            f"small: {path} is missing and cannot be downloaded "
            f"({mirror.url}file.gz: HTTP Error 404: Not Found; {nobody}file.gz: Connection refused; "
            f"{other.url}file.gz: ends after 1,500 of the 3,000 bytes expected): "
            "download file.gz manually into that folder, or give the path of your own copy instead of small; "
            f"set CNN_DATA to use another folder for downloads than {cache}"
        )


class TestCache:
    @pytest.fixture
    def path(self, cache):
        (cache / "small").mkdir(parents=True)
        return cache / "small" / "file.gz"

    @pytest.mark.parametrize("damaged", [DATA[:-1], DATA[:-1] + b"?", b"", DATA + b"?"])
    def test_a_damaged_file_is_downloaded_again(self, path, mirror, damaged):
        mirror.answers["file.gz"] = whole(DATA)
        published(mirror).fetch()
        path.write_bytes(damaged)
        assert published(mirror).fetch()[0].read_bytes() == DATA
        assert mirror.requests == ["file.gz", "file.gz"]

    def test_a_damaged_file_is_named_where_there_is_no_network(self, path):
        path.write_bytes(DATA[:-1])
        with refused(path, "is damaged (2,999 bytes instead of 3,000) and cannot be downloaded", "refused"):
            published(refusing()).fetch()
        path.write_bytes(DATA[:-1] + b"?")
        with refused(path, "is damaged (sha256 ", ") and cannot be downloaded"):
            published(refusing()).fetch()

    def test_a_folder_in_the_files_place(self, path, no_network):
        path.mkdir()
        with refused(path, "is a folder or a device where the file file.gz belongs: remove it"):
            published("http://127.0.0.1:9/").fetch()

    def test_a_file_in_the_folders_place(self, tmp_path, cache, mirror):
        cache.write_bytes(b"")
        mirror.answers["file.gz"] = whole(DATA)
        with refused(cache, "cannot store file.gz", "name another folder for downloads in CNN_DATA"):
            published(mirror).fetch()

    def test_a_link_to_nowhere_is_replaced(self, path, mirror):
        path.symlink_to("nowhere")
        mirror.answers["file.gz"] = whole(DATA)
        assert published(mirror).fetch()[0].read_bytes() == DATA
        assert not path.is_symlink()

    @pytest.mark.parametrize(
        ("function", "code", "reason"),
        [
            ("pathlib.Path.open", 30, "Read-only file system"),
            ("os.fsync", 28, "No space left on device"),
            ("os.replace", 13, "Permission denied"),
        ],
    )
    def test_a_disk_that_takes_nothing(self, cache, mirror, monkeypatch, function, code, reason):
        def fail(*arguments, **named):
            raise OSError(code, reason)

        mirror.answers["file.gz"] = whole(DATA)
        monkeypatch.setattr(function, fail)
        with refused(
            cache / "small", f"cannot store file.gz, 3,000 bytes ({reason}): free some space", "CNN_DATA"
        ):
            published(mirror).fetch()
        assert files(cache) == []

    def test_a_read_only_folder_with_the_file_will_do(self, path, no_network):
        path.write_bytes(DATA)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        try:
            assert published("http://127.0.0.1:9/").fetch() == [path]
        finally:
            path.parent.chmod(0o755)

    def test_a_file_that_may_not_be_read(self, path, monkeypatch):
        path.write_bytes(DATA)

        def deny(self, *arguments):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", deny)
        with refused(path, "cannot be read (Permission denied)"):
            published("http://127.0.0.1:9/").fetch()

    def test_leftovers_go_once_nobody_can_be_writing_them(self, path, mirror):
        old, young = (path.with_name(f".file.gz.{number}.part") for number in (1, 2))
        old.touch()
        young.touch()
        hours_ago = time.time() - 7200
        os.utime(old, (hours_ago, hours_ago))
        mirror.answers["file.gz"] = whole(DATA)
        published(mirror).fetch()
        assert files(path.parent.parent) == [young.name, "file.gz"]


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from cnn.data.published.downloads import Published, PublishedFile
url, size, sha256 = sys.argv[1:]
(path,) = Published("small", (PublishedFile("file.gz", int(size), sha256),), (url,)).fetch()
print(path)
"""


class TestProcesses:
    """Real ones, held in the middle of a download until the test has looked."""

    @pytest.fixture
    def held(self, mirror):
        """An event that lets every download of file.gz, now at its half, go on."""
        go_on = Event()

        def answer(mirror, handler):
            send(handler, DATA[:1500], len(DATA))
            go_on.wait(60)
            handler.wfile.write(DATA[1500:])

        mirror.answers["file.gz"] = answer
        return go_on

    @contextmanager
    def child(self, cache, mirror, count=1):
        """Processes that download, each come to the middle."""
        (file,) = published(mirror).files
        command = [sys.executable, "-c", CHILD, mirror.url, str(file.size), file.sha256]
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        started = [
            subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        try:
            for _ in range(6000):
                if len(mirror.requests) == len(self.parts(cache)) == count:
                    break
                time.sleep(0.01)
            assert len(self.parts(cache)) == count
            assert not (cache / "small" / "file.gz").exists()
            yield started
        finally:
            for process in started:
                process.kill()
                process.communicate()

    @staticmethod
    def parts(cache):
        return list((cache / "small").glob(".file.gz.*.part"))

    def test_two_at_once_do_not_disturb_each_other(self, cache, mirror, held):
        with self.child(cache, mirror, 2) as processes:
            held.set()
            said = [process.communicate(timeout=60) for process in processes]
        assert said == [(f"{cache / 'small' / 'file.gz'}\n", "")] * 2
        assert (cache / "small" / "file.gz").read_bytes() == DATA
        assert files(cache) == ["file.gz"]

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_one_that_is_killed_stands_in_nobodys_way(self, cache, mirror, held):
        with self.child(cache, mirror) as (process,):
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        (part,) = self.parts(cache)
        assert files(cache) == [part.name]
        held.set()
        assert published(mirror).fetch()[0].read_bytes() == DATA
        os.utime(part, (0, 0))
        (cache / "small" / "file.gz").unlink()
        published(mirror).fetch()
        assert files(cache) == ["file.gz"]

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_one_that_is_interrupted_leaves_nothing(self, cache, mirror, held):
        with self.child(cache, mirror) as (process,):
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert files(cache) == []


class TestProgress:
    @pytest.fixture(autouse=True)
    def _served(self, cache, mirror):
        mirror.answers["file.gz"] = whole(DATA)

    def test_a_short_download_says_nothing(self, mirror, capsys):
        published(mirror).fetch()
        assert capsys.readouterr() == ("", "")

    def test_a_long_one_is_one_line_where_there_is_no_terminal(self, mirror, capsys, monkeypatch):
        monkeypatch.setattr(downloads, "_LONG", len(DATA))
        published(mirror).fetch()
        assert capsys.readouterr() == ("", "downloading file.gz (3.0 kB) from 127.0.0.1\n")

    def test_a_terminal_shows_how_far_it_is(self, mirror, capsys, monkeypatch):
        monkeypatch.setattr(downloads, "_LONG", len(DATA))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        published(mirror).fetch()
        out, err = capsys.readouterr()
        assert out == ""
        assert "3.0/3.0 kB" in err


class TestFashionMnist:
    @pytest.fixture
    def small(self, cache, mirror, monkeypatch, tmp_path):
        """Four small files of the names in the place of the published ones; -> the folder in the cache."""
        table = []
        for name, array in zip(NAMES, (X_TRAIN, Y_TRAIN, X_TEST, Y_TEST), strict=True):
            data = write(tmp_path / f"{name}.gz", idx(array)).read_bytes()
            mirror.answers[f"{name}.gz"] = whole(data)
            table.append(PublishedFile(f"{name}.gz", len(data), hashlib.sha256(data).hexdigest()))
        chosen = Published("fashion-mnist", tuple(table), (mirror.url,))
        monkeypatch.setattr(fashion_mnist, "FASHION_MNIST", chosen)
        return cache / "fashion-mnist"

    def check(self, train, test):
        np.testing.assert_array_equal(train.images[:, 0], X_TRAIN)
        np.testing.assert_array_equal(test.images[:, 0], X_TEST)
        assert (train.labels.tolist(), test.labels.tolist()) == (Y_TRAIN.tolist(), Y_TEST.tolist())
        assert train.classes == test.classes
        assert (train.classes[0], train.classes[9], len(train.classes)) == ("T-shirt/top", "Ankle boot", 10)

    def test_downloaded_once(self, small, mirror):
        for _ in range(2):
            self.check(*cnn.data.load("fashion-mnist"))
        assert mirror.requests == [f"{name}.gz" for name in NAMES]

    def test_a_plain_file_beside_the_verified_one_is_not_taken(self, small):
        cnn.data.load("fashion-mnist")
        write(small / TEST_IMAGES, idx(X_TEST + 1))
        self.check(*cnn.data.load("fashion-mnist"))

    def test_files_got_by_hand_will_do(self, small, mirror, tmp_path, no_network):
        small.mkdir(parents=True)
        for name in NAMES:
            (tmp_path / f"{name}.gz").rename(small / f"{name}.gz")
        self.check(*cnn.data.load("fashion-mnist"))


class TestNames:
    def test_unknown_ones_are_answered_with_those_there_are(self):
        with refused("there is no data set 'cifar': expected mnist, fashion-mnist, cifar10, or the path of"):
            cnn.data.load("cifar")

    def test_a_name_stays_one_and_a_path_becomes_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in (*cnn.data.NAMES, "own"):
            (tmp_path / name).mkdir()
        assert [absolute(name) for name in cnn.data.NAMES] == ["mnist", "fashion-mnist", "cifar10"]
        assert absolute("own") == str(tmp_path / "own")
        assert absolute("./cifar10") == str(tmp_path / "cifar10")
        assert absolute("nowhere") == "nowhere"

    def test_importing_cnn_loads_nothing_that_only_a_download_needs(self):
        code = (
            "import sys, cnn; print(sorted({'platformdirs', 'requests', 'pooch', 'rich'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("[]\n", "")
