"""The largest difference between the weights of two models, without torch.

torch.save writes a zip: `data.pkl` describes the tensors, and each file in `data/` holds the numbers of one
storage. The description is a pickle, which could call anything. So nothing is unpickled here: the few
instructions that describe a dictionary of tensors are followed one by one, and everything else is refused.
"""

import array
import math
import operator
import pickletools
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

# A description of a few tensors has about a thousand bytes.
_LONGEST_DESCRIPTION = 1 << 20
_MOST_MEMBERS = 100_000
# How many numbers are compared at once.
_BLOCK = 1 << 16


class UnreadableWeights(Exception):
    """The weights are not stored in the one way that is read here. The text says what is different."""


class Format(Enum):
    """How a number is stored. The value is its size in bytes."""

    FLOAT32 = "FloatStorage", 4
    FLOAT16 = "HalfStorage", 2
    BFLOAT16 = "BFloat16Storage", 2
    # Which training text belongs to which class, in a model with neighbours.
    INT32 = "IntStorage", 4

    @property
    def size_bytes(self) -> int:
        return self.value[1]


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference of two weights, and its tensor. None if all weights are the same."""

    largest: float
    tensor: str | None


@dataclass(frozen=True)
class _Storage:
    format: Format
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    first: int
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def largest_difference(ours: Path, theirs: Path, check: Callable[[], object]) -> Difference:
    """Compare two files of weights that have the same tensors. `check` is called between blocks.

    Raises UnreadableWeights.
    """
    with ExitStack() as opened:
        mine = _Weights.of(ours, opened)
        other = _Weights.of(theirs, opened)
        if list(mine.tensors) != list(other.tensors):
            message = f"they have other tensors: {_names(mine)} and {_names(other)}"
            raise UnreadableWeights(message)
        for name, tensor in mine.tensors.items():
            if tensor.shape != other.tensors[name].shape:
                message = f"{name} has the shapes {tensor.shape} and {other.tensors[name].shape}"
                raise UnreadableWeights(message)
        found = Difference(0.0, None)
        for name in mine.tensors:
            largest = 0.0
            for these, those in zip(mine.numbers(name), other.numbers(name), strict=True):
                check()
                largest = max(largest, _largest(name, these, those))
            if largest > found.largest:
                found = Difference(largest, name)
        return found


def _names(weights: "_Weights") -> str:
    return ", ".join(name[:100] for name in list(weights.tensors)[:20])


def _largest(name: str, these: Sequence[float], those: Sequence[float]) -> float:
    if these == those:
        return 0.0
    differences: list[float] = [abs(one) for one in map(operator.sub, these, those)]
    if not all(map(math.isfinite, differences)):
        message = f"{name} has values that are not finite numbers"
        raise UnreadableWeights(message)
    return max(differences)


@dataclass(frozen=True)
class _Weights:
    """The tensors of one file by their names, in sorted order."""

    archive: zipfile.ZipFile
    folder: str
    tensors: dict[str, _Tensor]

    @classmethod
    def of(cls, path: Path, opened: ExitStack) -> "_Weights":
        """Raises UnreadableWeights."""
        try:
            archive = opened.enter_context(zipfile.ZipFile(path))
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                message = f"the file has {len(members):,} parts"
                raise UnreadableWeights(message)
            described = [one for one in members if one.filename.endswith("/data.pkl")]
            if len(described) != 1 or described[0].file_size > _LONGEST_DESCRIPTION:
                message = "it has not one description of its tensors, of a reasonable length"
                raise UnreadableWeights(message)
            folder = described[0].filename.removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                message = "its numbers are not stored with the lowest byte first"
                raise UnreadableWeights(message)
            tensors = _described(archive.read(described[0]))
            weights = cls(archive, folder, dict(sorted(tensors.items())))
            for name, tensor in weights.tensors.items():
                weights._check(name, tensor)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as exc:
            message = f"the file is not a whole zip ({exc})"
            raise UnreadableWeights(message) from exc
        return weights

    def _check(self, name: str, tensor: _Tensor) -> None:
        stored = self.archive.getinfo(self._file(tensor))
        size = tensor.storage.count * tensor.storage.format.size_bytes
        if stored.compress_type != zipfile.ZIP_STORED or stored.file_size != size:
            message = f"the numbers of {name[:100]} are not stored in {size} bytes, uncompressed"
            raise UnreadableWeights(message)
        if tensor.first + tensor.count > tensor.storage.count:
            message = f"{name[:100]} has more numbers than are stored"
            raise UnreadableWeights(message)

    def _file(self, tensor: _Tensor) -> str:
        return f"{self.folder}data/{tensor.storage.key}"

    def numbers(self, name: str) -> Iterator[Sequence[float]]:
        """The tensor's numbers in blocks of the same length for every format."""
        tensor = self.tensors[name]
        size, left = tensor.storage.format.size_bytes, tensor.count
        try:
            with self.archive.open(self._file(tensor)) as file:
                _skip(file, tensor.first * size)
                while left:
                    count = min(left, _BLOCK)
                    content = file.read(count * size)
                    if len(content) != count * size:
                        message = f"{name} ends too early"
                        raise UnreadableWeights(message)
                    yield _numbers(content, tensor.storage.format)
                    left -= count
        except (zipfile.BadZipFile, EOFError) as exc:
            message = f"the numbers of {name} are damaged ({exc})"
            raise UnreadableWeights(message) from exc


def _skip(file: IO[bytes], size_bytes: int) -> None:
    while size_bytes > 0:
        skipped = len(file.read(min(size_bytes, _BLOCK)))
        if skipped == 0:
            return
        size_bytes -= skipped


def _numbers(content: bytes, stored: Format) -> Sequence[float]:
    if stored is Format.FLOAT16:
        return struct.unpack(f"<{len(content) // 2}e", content)
    if stored is Format.BFLOAT16:
        # The upper half of a float32.
        wide = bytearray(2 * len(content))
        wide[2::4], wide[3::4] = content[0::2], content[1::2]
        content = bytes(wide)
    numbers = array.array("i" if stored is Format.INT32 else "f", content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


# The description: what its instructions may refer to, and what each of them does.

_REBUILD, _DICTIONARY, _MARK = object(), object(), object()
_NAMES: dict[str, object] = {
    "torch._utils _rebuild_tensor_v2": _REBUILD,
    "collections OrderedDict": _DICTIONARY,
    **{f"torch {one.value[0]}": one for one in Format},
}
_PUSHED = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1"}
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _described(pickled: bytes) -> dict[str, _Tensor]:
    """The tensors that the description names. Raises UnreadableWeights."""
    try:
        result = _follow(pickled)
    except (ValueError, IndexError, KeyError, TypeError, RecursionError) as exc:
        message = f"the description of its tensors cannot be read ({type(exc).__name__}: {exc})"
        raise UnreadableWeights(message) from exc
    if not isinstance(result, dict) or not result:
        message = "it does not describe a dictionary of tensors"
        raise UnreadableWeights(message)
    for name, tensor in result.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            message = f"{str(name)[:100]!r} is not a tensor with a name"
            raise UnreadableWeights(message)
    return result


def _follow(pickled: bytes) -> object:
    stack: list[Any] = []
    memo: dict[int, object] = {}
    for instruction, argument, _ in pickletools.genops(pickled):
        name = instruction.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "GLOBAL":
            if str(argument) not in _NAMES:
                message = f"it refers to {str(argument)[:100]!r}"
                raise UnreadableWeights(message)
            stack.append(_NAMES[str(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        else:
            _change(name, stack)
    message = "it has no end"
    raise UnreadableWeights(message)


def _change(name: str, stack: list[Any]) -> None:
    """One of the instructions that work on what others have put on the stack."""
    if name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "EMPTY_TUPLE":
        stack.append(())
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in _TUPLES:
        count = _TUPLES[name]
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "BINPERSID":
        stack.append(_storage(*stack.pop()))
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        stack.append(_made(called, arguments))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _dictionary(stack)[key] = value
    elif name == "SETITEMS":
        items = _since_mark(stack)
        _dictionary(stack).update(zip(items[::2], items[1::2], strict=True))
    elif name == "BUILD":
        # What torch notes beside the tensors of a module, such as the versions of its parts.
        stack.pop()
        _dictionary(stack)
    else:
        message = f"its description has the instruction {name}"
        raise UnreadableWeights(message)


def _since_mark(stack: list[Any]) -> list[Any]:
    at = max(index for index, item in enumerate(stack) if item is _MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _dictionary(stack: list[Any]) -> dict[Any, Any]:
    if not isinstance(stack[-1], dict):
        message = "it sets values of something that is not a dictionary"
        raise UnreadableWeights(message)
    return stack[-1]


def _made(called: object, arguments: object) -> object:
    if not isinstance(arguments, tuple):
        message = "it calls something without arguments"
        raise UnreadableWeights(message)
    if called is _DICTIONARY and not arguments:
        return {}
    if called is _REBUILD:
        return _tensor(*arguments)
    message = "it calls something other than what makes tensors"
    raise UnreadableWeights(message)


def _storage(kind: object, stored: object, key: object, _place: object, count: object) -> _Storage:
    if kind != "storage" or not isinstance(stored, Format) or not isinstance(key, str) or not _is_size(count):
        message = "it describes a storage of another kind"
        raise UnreadableWeights(message)
    return _Storage(stored, key, int(str(count)))


def _tensor(
    storage: object, first: object, shape: object, strides: object, *_about_gradients: object
) -> _Tensor:
    if (
        not isinstance(storage, _Storage)
        or not _is_size(first)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or not all(map(_is_size, (*shape, *strides)))
        or len(shape) != len(strides)
    ):
        message = "it describes a tensor of another kind"
        raise UnreadableWeights(message)
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            message = f"a tensor of the shape {shape} is not stored in the order of its numbers"
            raise UnreadableWeights(message)
        expected *= size
    return _Tensor(storage, int(str(first)), shape)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
