"""Weights and architecture in one safetensors file: data only, nothing is ever unpickled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import Backend
from backends.memory import Shape
from cnn.data.preprocessing import Preprocessing
from cnn.data.readers.npz import holds_arrays, read_npz
from cnn.layers.description import rebuild
from cnn.network import FILE_VERSION, Network
from cnn.saving import foreign
from cnn.support.arguments import shape
from cnn.support.dtypes import dtype_on
from cnn.support.errors import CheckpointError, DataError
from cnn.support.libraries import require
from cnn.support.reading import open_regular
from cnn.support.tensors import METADATA
from cnn.support.text import short

EPOCH = "epoch"  # in a file's description: the epoch of the weights
TRAINING = "training/"  # prefix of a checkpoint's arrays that do not belong to the network
MODEL_FILE = "model.safetensors"  # in the folder of a run
MOST_HEADER = 16 << 20  # bytes; a tensor takes about 100 of them
UNREADABLE = (
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
)  # safetensors' names of dtypes that NumPy lacks


def load(path: str | Path, device: Backend | str = "auto", network: Network | None = None) -> Network:
    """Load the network in ``path`` on ``device``; or load its weights into ``network`` on its own device.

    The network gets the preprocessing and the class names that the file describes. The weights of
    a mixed-precision network are float32 in its file, and a CPU computes with them in float32.

    Names may have a prefix like those of PyTorch's DataParallel and compile. The file may be an .npz.
    Raises CheckpointError if the file is missing, damaged, of another kind or of another architecture, or
    if a weight is NaN or infinite; :meth:`Sequential.load_state_dict` accepts such arrays.
    """
    saved = SavedNetwork.read(path)
    if network is None:
        return saved.build(device, advice="give the network to load it into: cnn.load(path, network=...)")
    saved.put_into(network)
    return network


@dataclass(frozen=True)
class SavedNetwork:
    """A file of weights that was read."""

    path: str | Path
    state: dict[str, Any]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "SavedNetwork":
        """Read the file; CheckpointError if it is missing, damaged or of another kind."""
        return cls(path, *read(path))

    @property
    def input_shape(self) -> Shape | None:
        """The shape of the images that the network was built for; None if the file does not have it."""
        try:
            return shape("input_shape", json.loads(self.metadata[METADATA])["input_shape"])
        except (TypeError, LookupError, ValueError, RecursionError):
            return None

    @property
    def is_described(self) -> bool:
        """Whether the file says which layers the network has."""
        try:
            return "network" in json.loads(self.metadata[METADATA])
        except (TypeError, LookupError, ValueError, RecursionError):
            return False

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        return "float64" if any(array.dtype == np.float64 for array in self.state.values()) else "float32"

    def build(self, device: Backend | str, winograd: bool = True, *, advice: str) -> Network:
        """The network that the file describes, with its weights.

        Raises CheckpointError, with ``advice``, if the file does not describe one.
        """
        try:
            network = _rebuild(self.metadata, device, self.state, winograd)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}; {advice}") from error
        self.put_into(network)
        return network

    def architecture(self) -> Network:
        """The network that the file describes, not yet built and without the file's weights.

        Raises CheckpointError if the file does not describe one.
        """
        try:
            description = json.loads(self.metadata[METADATA])
            if "not_described" in description:
                raise ValueError(description["not_described"])
            return _described(description)
        except (TypeError, LookupError, AttributeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self.path}: the file does not describe its network ({short(str(error), 200)}): give a "
                "file that net.save wrote, or the name of a model"
            ) from None

    def put_into(self, network: Network) -> None:
        """Give ``network`` the weights, and what the file says of the images and the classes.

        Raises CheckpointError if they are those of another network, or not finite.
        """
        try:
            state = foreign.without_wrappers(self.state, network.shapes)
            network.require_state(state)
            require_finite(state, network.master_dtype)
            take_description(network, self.metadata)
            network.load_state_dict(state)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(weights by name, metadata) of a safetensors file or a checkpoint."""
    arrays, metadata = read_all(path)
    return weights_in(arrays), metadata


def are_finite(arrays: dict[str, Any]) -> bool:
    """Whether all values in host arrays are finite."""
    return all(np.isfinite(array).all() for array in arrays.values())


def require_finite(state: Mapping[str, Any], dtype: str) -> None:
    """Raise CheckpointError if a weight would be NaN or infinite in ``dtype``."""
    for name, array in state.items():
        if array.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            finite = np.count_nonzero(np.isfinite(array.astype(dtype, copy=False)))
        if wrong := array.size - finite:
            what = f"{name} has {wrong:,} of {array.size:,} values that are"
            if np.isfinite(array).all():
                raise CheckpointError(f"{what} too large for {dtype}: load the weights as {array.dtype}")
            raise CheckpointError(
                f"{what} NaN or infinite: use weights from before the training run diverged"
            )


def weights_in(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint that belong to the network."""
    return {name: array for name, array in arrays.items() if not name.startswith(TRAINING)}


def epoch_of(path: str | Path) -> int | None:
    """The epoch of the weights in ``path``; None if the file does not contain it."""
    _, metadata = read(path)
    try:
        return int(json.loads(metadata[METADATA])[EPOCH])
    except (LookupError, TypeError, ValueError, RecursionError):
        return None


def read_all(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file, or of an .npz, which has no metadata."""
    safetensors = require("safetensors", "to read weights")
    SafetensorError, safe_open = safetensors.SafetensorError, safetensors.safe_open
    start: bytes | None = None
    try:
        with open_regular(Path(path)) as opened:
            start = opened.read(32)
        if start.startswith(b"PK") and holds_arrays(Path(path)):
            return read_npz(Path(path)), {}
        if (length := int.from_bytes(start[:8], "little")) > MOST_HEADER:
            raise SafetensorError(f"its header would have {length:,} bytes, expected at most {MOST_HEADER:,}")
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            forms = {name: file.get_slice(name).get_dtype() for name in names}
            for name, form in forms.items():
                if form in UNREADABLE:
                    raise CheckpointError(
                        f"{path}: {name} is {form}, which NumPy does not have: "
                        "save the weights as float32, in PyTorch with model.float()"
                    )
            arrays = {name: file.get_tensor(name) for name, form in forms.items() if form != "BF16"}
            arrays |= _read_bfloat16(path, [name for name, form in forms.items() if form == "BF16"])
            return arrays, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(
            f"the file {path} does not exist: expected a safetensors file of weights"
        ) from None
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError | DataError):
            raise CheckpointError(str(error)) from error
        what = None if start is None else foreign.named(Path(path), start)
        if what:
            raise CheckpointError(f"{path} is {what}") from error
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise CheckpointError(f"{path} is not a readable safetensors file: {short(reason, 300)}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its arrays; CheckpointError if it is damaged."""
    try:
        with open_regular(Path(path)) as file:
            if (length := int.from_bytes(file.read(8), "little")) > MOST_HEADER:
                raise ValueError(f"its header would have {length:,} bytes, expected at most {MOST_HEADER:,}")
            metadata = json.loads(file.read(length)).get("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are not texts by name")
        return metadata
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, AttributeError, RecursionError) as error:
        reason = short(str(error), 200)
        raise CheckpointError(f"{path} is not a readable safetensors file: {reason}") from None


def _read_bfloat16(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Arrays of bfloat16, which NumPy lacks; each value is the upper half of a float32."""
    arrays: dict[str, Any] = {}
    if names:
        with open_regular(Path(path)) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name in names:
                first, end = header[name]["data_offsets"]
                file.seek(8 + length + first)
                halves = np.frombuffer(file.read(end - first), "<u2").astype(np.uint32)
                arrays[name] = (halves << 16).view(np.float32).reshape(header[name]["shape"])
    return arrays


def take_description(network: Network, metadata: Mapping[str, str]) -> None:
    """Give ``network`` the preprocessing and the class names that a file describes.

    A file from elsewhere does not say how its images were prepared: the network then keeps its own. Raises
    CheckpointError if they cannot be used.
    """
    if METADATA not in metadata:
        return
    what = "preprocessing"
    try:
        described = json.loads(metadata[METADATA])
        preprocessing = described.get(what)
        network.preprocessing = None if preprocessing is None else Preprocessing(**preprocessing)
        what = "class names"
        network.class_names = described.get("class_names")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"the description of the {what} cannot be used ({short(str(error), 300)})"
        ) from None


def _rebuild(
    metadata: dict[str, str], device: Backend | str, state: Mapping[str, Any], winograd: bool
) -> Network:
    """The network that a file describes, whose arrays are ``state``."""
    backend = backends.get(device) if isinstance(device, str) else device
    try:
        description = json.loads(metadata.get(METADATA, "{}"))
        if "network" in description:
            if description["version"] != FILE_VERSION:
                raise ValueError(f"version {description['version']}, expected {FILE_VERSION}")
            network = _described(description)
            input_shape = tuple(description["input_shape"])
            require_held(network, input_shape, state)
            dtype = dtype_on(backend, description["dtype"])
            network.build(input_shape, backend=backend, dtype=dtype, winograd=winograd)
            return network
        reason = description.get("not_described", "the file does not say which network it belongs to")
    except (TypeError, LookupError, AttributeError, ValueError, RecursionError, MemoryError) as error:
        reason = f"the description of the network cannot be used ({short(str(error), 300)})"
    raise CheckpointError(reason)


def _described(description: dict[str, Any]) -> Network:
    layers = description["network"]["layers"]
    return Network(*(rebuild(layer, str(number)) for number, layer in enumerate(layers)))


def require_held(network: Network, input_shape: Shape, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a network that is not built would have more numbers than ``state`` holds.

    No memory is taken for them: a few words in a file can ask for any amount.
    """
    described = network.count_parameters(shape("input_shape", input_shape))
    held = sum(array.size for array in state.values())
    if described > held:
        raise CheckpointError(f"it has {described:,} numbers, the file holds {held:,}")
