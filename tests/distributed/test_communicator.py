"""What the processes tell each other outside of training steps, and how they find each other."""

import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helpers.together import end_of, needed, together

import backends
import cnn
from cnn.training.distributed import Communicator, launcher

SIZE = 3
ERRORS = {
    "a mistake": cnn.errors.ArgumentError,
    "a file": cnn.errors.CheckpointError,
    "a set": cnn.errors.DataError,
    "another": OSError,
}


def outcome(work):
    """The result, or the kind and the text of the error."""
    try:
        return work()
    except Exception as error:
        return [type(error).__name__, str(error)]


def failing(text):
    raise ERRORS[text](f"there is {text}")


def in_all(group, work):
    with group.together():
        return work()


def job():
    """Each scenario's results of all processes."""
    group = cnn.distributed.communicator()

    def fails_in(*ranks):
        return lambda: failing("a mistake") if group.rank in ranks else group.rank

    def rows():
        found = np.zeros((7, 2))
        own = range(7 * group.rank // SIZE, 7 * (group.rank + 1) // SIZE)
        found[own.start : own.stop] = group.rank + 1
        group.gather_rows(found, own)
        return found[:, 0].tolist()

    def fit(**options):
        images, labels = np.zeros((12, 1, 4, 4), np.uint8), np.arange(12) % 2
        images[options.pop("lit", 0)] = 255
        data = cnn.data.Dataset(images, labels)
        net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        weights = options.pop("weights", 0)
        net.build((1, 4, 4), backend=backends.get("cpu", "portable", threads=1), seed=weights)
        options = {"optimizer": cnn.SGD(0.1), "batch_size": 4, "callbacks": []} | options
        return len(cnn.fit(net, data, processes=group, **options))

    def differing(name, one, other):
        return lambda: fit(**{name: other if group.rank == 1 else one})

    scenarios = {
        "facts": lambda: [group.rank, group.size, group.shards, group.is_first, group.host],
        "gather": lambda: group.gather({"rank": group.rank}),
        "first": lambda: group.first(lambda: [group.rank, "read"]),
        "first fails": lambda: group.first(lambda: failing("a file")),
        "together": lambda: in_all(group, lambda: group.rank),
        "the last fails": lambda: in_all(group, fails_in(2)),
        "two fail": lambda: in_all(group, fails_in(1, 2)),
        "the first fails": lambda: in_all(group, fails_in(0)),
        "with an error of another kind": lambda: in_all(
            group, lambda: failing("another") if group.rank == 1 else None
        ),
        "with an error of data": lambda: in_all(group, lambda: failing("a set") if group.rank == 1 else None),
        "the same": lambda: group.require_same({"seed": 0, "data": "abc"}),
        "another seed": lambda: group.require_same({"data": "abc", "seed": 7 if group.rank == 2 else 0}),
        "a long difference": lambda: group.require_same({"augment": ["x" * 300, group.rank]}),
        "rows": rows,
        "any of": lambda: group.any_of(1 << group.rank).wait(),
        "none of": lambda: group.any_of(0).wait(),
        "a run": fit,
        "other images": differing("lit", 0, 1),
        "other weights": differing("weights", 0, 1),
        "another rate": differing("optimizer", cnn.SGD(0.1), cnn.SGD(0.2)),
        "other epochs": differing("epochs", 1, 2),
        "a batch that is no number": differing("batch_size", 4, "many"),
        "too small a batch": lambda: fit(batch_size=2),
    }
    found = {name: group.gather(outcome(scenario)) for name, scenario in scenarios.items()}
    group.shards = 2
    return found | {"too many processes": group.gather(outcome(fit)), "host": group.host}


def failing_job(folder):
    """An error that one process has, and nobody catches."""
    group = cnn.distributed.communicator()
    used = re.findall(r"/dev/shm/mpich\S+", Path("/proc/self/maps").read_text())
    Path(folder, str(group.rank)).write_text("\n".join(used))
    if group.rank == 1:
        raise ValueError("one process has failed")
    group.gather(None)


@cache
def results():
    return together(SIZE, job)


def seen(name):
    """What each process has seen, with HOST for the name of this machine."""
    found = results()
    return json.loads(json.dumps(found[name]).replace(found["host"], "HOST"))


@needed
class TestValues:
    def test_each_process_knows_its_number_and_how_many_there_are(self):
        assert seen("facts") == [[rank, SIZE, None, rank == 0, "HOST"] for rank in range(SIZE)]

    def test_all_have_the_values_of_all_in_their_order(self):
        assert seen("gather") == [[{"rank": rank} for rank in range(SIZE)]] * SIZE

    def test_all_have_what_the_first_has_found(self):
        assert seen("first") == [[0, "read"]] * SIZE

    def test_each_keeps_its_own_result(self):
        assert seen("together") == [0, 1, 2]

    def test_rows_come_from_the_process_that_has_them(self):
        assert seen("rows") == [[1, 1, 2, 2, 3, 3, 3]] * SIZE

    def test_a_word_has_the_bits_of_all(self):
        assert seen("any of") == [0b111] * SIZE
        assert seen("none of") == [0] * SIZE


@needed
class TestErrors:
    def test_that_of_one_process_is_raised_in_all_with_its_name(self):
        text = "there is a mistake"
        named = ["ArgumentError", f"process 2 on HOST: {text}"]
        assert seen("the last fails") == [named, named, ["ArgumentError", text]]

    def test_the_first_of_several_is_raised(self):
        own, named = "there is a mistake", "process 1 on HOST: there is a mistake"
        assert [text for _, text in seen("two fail")] == [named, own, named]

    @pytest.mark.parametrize("name", ["the first fails", "first fails"])
    def test_that_of_process_0_which_speaks_for_all_needs_no_name(self, name):
        first, *others = seen(name)
        assert others == [first] * 2
        assert first[1].startswith("there is a ")

    def test_the_kind_is_kept_if_the_library_has_it(self):
        named = "process 1 on HOST: there is a"
        assert seen("with an error of data") == [
            ["DataError", f"{named} set"],
            ["DataError", "there is a set"],
            ["DataError", f"{named} set"],
        ]
        assert seen("with an error of another kind") == [
            ["ArgumentError", f"{named}nother"],
            ["OSError", "there is another"],
            ["ArgumentError", f"{named}nother"],
        ]

    def test_one_that_nobody_catches_ends_all(self, tmp_path):
        ended = end_of(SIZE, failing_job, str(tmp_path))
        assert ended.code != 0  # that of the process with the error, or of those that the launcher ended
        assert ended.errors.count("ValueError: one process has failed") == 1
        assert "BAD TERMINATION" not in ended.errors
        used = {path for rank in range(SIZE) for path in (tmp_path / str(rank)).read_text().split()}
        assert not any(Path(path).exists() for path in used)  # shared memory that would stay until a reboot


@needed
class TestTheSame:
    def test_equal_facts_are_no_error(self):
        assert seen("the same") == [None] * SIZE
        assert seen("a run") == [1] * SIZE

    def test_the_first_difference_is_named_in_all(self):
        text = "process 2 on HOST has seed 7, process 0 on HOST has 0: start all processes with the same"
        assert seen("another seed") == [["ArgumentError", text]] * SIZE

    def test_a_difference_at_the_end_of_a_long_value_is_found(self):
        assert [kind for kind, _ in seen("a long difference")] == ["ArgumentError"] * SIZE

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("other images", "has data "),
            ("other weights", "has weights "),
            ("another rate", "has learning_rate 0.2, process 0 on HOST has 0.1: "),
            ("other epochs", "has epochs 2, process 0 on HOST has 1: "),
        ],
    )
    def test_fit_requires_the_same_of_all(self, name, said):
        kinds, texts = zip(*seen(name), strict=True)
        assert kinds == ("ArgumentError",) * SIZE
        assert len(set(texts)) == 1
        assert texts[0].startswith(f"process 1 on HOST {said}")
        assert texts[0].endswith(": start all processes with the same")

    def test_a_wrong_argument_of_one_process_is_an_error_in_all(self):
        (_, first), (_, own), (_, last) = seen("a batch that is no number")
        assert first == last == f"process 1 on HOST: {own}"
        assert own.startswith("batch_size is 'many'")

    def test_there_are_no_more_processes_than_shards_and_no_more_shards_than_images_in_a_batch(self):
        assert seen("too many processes") == [
            ["ArgumentError", "3 processes, but this run cuts each batch into 2 shards: start at most 2"]
        ] * SIZE  # fmt: skip
        kinds, texts = zip(*seen("too small a batch"), strict=True)
        assert kinds == ("ArgumentError",) * SIZE
        assert texts[0].startswith("3 shards are more than the 2 images of a batch: ")


class TestOneProcess:
    def test_it_answers_itself(self):
        group = cnn.distributed.communicator()
        rows = np.arange(3)
        group.gather_rows(rows, range(3))
        assert (group.rank, group.size, group.shards, group.is_first) == (0, 1, None, True)
        assert group.gather("x") == ["x"]
        assert group.first(lambda: 1) == in_all(group, lambda: 1) == 1
        assert rows.tolist() == [0, 1, 2]
        assert group.any_of(5).wait() == 5
        assert group.exchange(backends.get("cpu"), 4, 10, "float32") is None
        with pytest.raises(OSError, match="there is another"):
            in_all(group, lambda: failing("another"))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"shards": 0}, r"^shards is 0, expected"),
            ({"timeout": 0}, r"^timeout is 0, expected a number of seconds above 0$"),
            ({"timeout": -1}, r"^timeout is -1"),
        ],
    )
    def test_wrong_arguments_are_refused(self, options, said):
        with pytest.raises(cnn.errors.ArgumentError, match=said):
            cnn.distributed.communicator(**options)

    def test_fit_takes_nothing_else_for_processes(self):
        net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        data = cnn.data.Dataset(np.zeros((4, 1, 3, 3), np.uint8), [0, 1, 0, 1])
        with pytest.raises(cnn.errors.ArgumentError, match=r"^processes is 4, expected .*communicator\(\)"):
            cnn.fit(net, data, processes=4)

    def test_a_resumed_run_keeps_its_shards(self, tmp_path):
        def fit(shards, **more):
            net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
            images = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), dtype=np.uint8)
            options = {"optimizer": cnn.SGD(0.1), "batch_size": 4} | more
            cnn.fit(
                net, cnn.data.Dataset(images, np.arange(12) % 2), processes=Communicator(shards=shards),
                callbacks=[cnn.Checkpoint(tmp_path / "c.safetensors")], **options,
            )  # fmt: skip

        fit(3)
        again = {"resume": tmp_path / "c.safetensors", "epochs": 2}
        with pytest.raises(cnn.CheckpointError, match=r"began with shards 3, now it is 4: give the same"):
            fit(4, **again)
        fit(None, **again)


class TestLauncher:
    """What is found in the environment, and an MPI that does not belong to it."""

    @pytest.fixture
    def mpi(self, monkeypatch):
        """A world of one process, of MPICH; nothing is launched."""
        names = (*launcher.SIZES, *launcher.RANKS, *launcher.LOCAL_RANKS)
        for name in (*names, launcher.PMIX):
            monkeypatch.delenv(name, raising=False)
        mpi = ModuleType("mpi4py.MPI")
        mpi.COMM_WORLD = SimpleNamespace(rank=0, size=1)
        mpi.THREAD_FUNNELED, mpi.Init_thread = 1, lambda level: None
        mpi.Get_library_version = lambda: "MPICH Version:      5.0.2\nmore\0"
        mpi.Is_initialized = lambda: True  # so that nothing waits for others at the end
        package = ModuleType("mpi4py")
        package.rc, package.MPI = SimpleNamespace(), mpi
        monkeypatch.setitem(sys.modules, "mpi4py", package)
        monkeypatch.setitem(sys.modules, "mpi4py.MPI", mpi)
        return mpi

    def test_without_one_there_is_one_process_and_no_mpi(self, mpi, monkeypatch):
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        assert cnn.distributed.communicator().size == 1

    @pytest.mark.parametrize(
        ("size", "rank", "local_rank"),
        [
            ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
            ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ],
        ids=["MPICH", "Open MPI"],
    )
    def test_its_variables_are_read(self, mpi, monkeypatch, size, rank, local_rank):
        assert not launcher.is_launched()
        for name, value in ((size, "6"), (rank, "5"), (local_rank, "2")):
            monkeypatch.setenv(name, value)
        assert launcher.is_launched()
        assert (launcher.size(), launcher.rank()) == (6, 5)
        assert launcher.local_rank() == 2

    def test_one_process_of_a_launcher_is_alone(self, mpi, monkeypatch):
        monkeypatch.setenv("PMI_SIZE", "1")
        assert not launcher.is_launched()

    def test_slurm_with_pmix_says_no_size(self, mpi, monkeypatch):
        monkeypatch.setenv("PMIX_RANK", "1")
        assert not launcher.is_launched()  # a step of one process, or a shell in it
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
        assert launcher.is_launched()
        with pytest.raises(cnn.errors.ArgumentError, match=r"^Slurm started several processes, MPI sees 1: "):
            cnn.distributed.communicator()

    @pytest.mark.parametrize("has_package", [False, True], ids=["no mpi4py", "no library"])
    def test_a_missing_mpi_is_told_with_what_to_install(self, mpi, monkeypatch, has_package):
        def no_library(name):
            raise RuntimeError("cannot load MPI library")

        package = ModuleType("mpi4py")
        package.rc, package.__getattr__ = SimpleNamespace(), no_library
        monkeypatch.setenv("PMI_SIZE", "2")
        monkeypatch.setitem(sys.modules, "mpi4py", package if has_package else None)
        with pytest.raises(cnn.errors.ArgumentError) as caught:
            cnn.distributed.communicator()
        assert str(caught.value).startswith("training in several processes needs MPI (")
        assert str(caught.value).endswith("): pip install mpi4py mpich")

    def test_that_of_another_mpi_is_noticed_by_the_number_of_processes(self, mpi, monkeypatch):
        monkeypatch.setenv("PMI_SIZE", "2")
        mpi.Get_library_version = lambda: "Open MPI v5.0.11, package: x"
        with pytest.raises(cnn.errors.ArgumentError) as caught:
            cnn.distributed.communicator()
        assert str(caught.value) == (
            "the launcher started 2 processes, MPI sees 1: this mpiexec belongs to another MPI than "
            "Python's, which is Open MPI v5.0.11, package: x: use the mpiexec that was installed with it"
        )

    def test_that_of_open_mpi_is_noticed_before_another_mpi_starts_and_fails(self, mpi, monkeypatch):
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        monkeypatch.delattr(mpi, "Init_thread")
        with pytest.raises(cnn.errors.ArgumentError, match=r"^this mpiexec .* is MPICH Version: +5\.0\.2: "):
            cnn.distributed.communicator()
