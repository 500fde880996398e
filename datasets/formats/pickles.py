"""Pickles of the CIFAR kind (a dictionary of numbers, texts, lists and arrays), read without running anything.

Unpickling calls whatever a file names. Here it can name six things of numpy and Python, and gets stand-ins of this
module for them, which check their arguments and do nothing but describe an array; no function of numpy is called with
what a file says before that was checked. Before that, the file's instructions are compared with a list of those needed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any

import numpy as np

from randomix.errors import DataError

MAX_BYTES = 2**30  # CIFAR-100's training batch has 155 MB
MAX_INSTRUCTIONS = 4_000_000  # that batch has about 300,000
NEEDED = """MARK STOP PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD"""
INSTRUCTIONS = frozenset(NEEDED.split())  # no classes (INST, OBJ, NEWOBJ), no persistent ids, no extension registry
TEXTS = """STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE
    BINUNICODE8"""
KEYS = frozenset(TEXTS.split()) | {"REDUCE"}  # what the stand-ins give is bytes, or hashes by its address
DTYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"})


def load_batch(data: bytes, name: str, fix: str) -> dict[str, Any]:
    """The dictionary in a pickle of protocol 0 to 5, keys as str, texts of Python 2 as bytes, arrays read-only views.

    name and fix: of the file, and what mends it, for messages. Only values directly in the dictionary become arrays.
    Raises DataError, without having run anything, for a pickle of another kind or none.
    """
    try:
        _check_instructions(data)
        batch = _Reader(data).load()
        if type(batch) is not dict:
            raise _Refused(f"a {_kind(batch)}")
        return {_text(key): _value(value) for key, value in batch.items()}
    except Exception as error:  # damaged pickles raise nearly every kind, MemoryError and RecursionError too
        found = str(error) if isinstance(error, _Refused) else f"damaged data ({type(error).__name__})"
        raise DataError(
            f"{name}: expected a pickled dictionary of arrays, numbers and texts, found {found}; "
            f"nothing of it was executed; {fix}"
        ) from error


class _Refused(pickle.UnpicklingError):
    """What a pickle holds that no such batch needs; the message completes "found"."""


def _check_instructions(data: bytes) -> None:
    """Refuse instructions that are not needed, and numbers in them that would take memory or stack."""
    if len(data) > MAX_BYTES:
        raise _Refused(f"{len(data)} bytes, more than {MAX_BYTES}")
    end, stack = -1, _Stack()
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if name not in INSTRUCTIONS:
            raise _Refused(f"the instruction {name}")
        if "PUT" in name and argument > count + 1:  # the reader makes a table as long as the largest number
            raise _Refused("a table of absurd size")
        if count > MAX_INSTRUCTIONS:
            raise _Refused("far more parts than a batch has")
        stack.step(name, argument)
        end = position + 1
    if end != len(data):
        raise _Refused(f"{len(data) - end} bytes after its end")


def _effect(opcode: pickletools.OpcodeInfo) -> tuple[bool, int, int]:
    """Of an instruction: whether it takes all above the last mark, how many it takes below that, how many it puts."""
    marked = pickletools.markobject in opcode.stack_before
    fixed = [one for one in opcode.stack_before if one not in (pickletools.markobject, pickletools.stackslice)]
    return marked, len(fixed), len(opcode.stack_after)


_EFFECTS = {one.name: _effect(one) for one in pickletools.opcodes if one.name in INSTRUCTIONS}


class _Stack:
    """The reader's stack, without the values: of each, whether it may be the key of a dictionary.

    Hashing (t, t) of (t, t) of ..., each written once and fetched again, takes twice as long with every step, and
    deep tuples overflow the stack of hash(). No key of a batch is a tuple or a number, so none of them is ever hashed.
    """

    def __init__(self) -> None:
        self._stack: list[bool] = []
        self._marks: list[int] = []
        self._memo: dict[int, bool] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction; raises IndexError or KeyError where the reader finds nothing either."""
        stack = self._stack
        if name == "MARK":
            self._marks.append(len(stack))
        elif "PUT" in name or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif "GET" in name:
            stack.append(self._memo[argument])
        else:
            marked, takes, puts = _EFFECTS[name]
            start = self._marks.pop() if marked else len(stack) - takes
            keys = stack[start::2] if marked else stack[start + 1 : start + 2]
            if name in ("SETITEMS", "DICT", "SETITEM") and not all(keys):
                raise _Refused("a key other than a text")
            del stack[start - takes if marked else start :]
            stack += [name in KEYS] * puts


class _Reader(pickle.Unpickler):
    """The unpickler of the standard library; every name in a file becomes a stand-in or an error."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")  # Python 2's texts, which hold the pixels, stay bytes
        self._globals = _stand_ins(len(data))

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name that is allowed; compared as a whole, so that no dot leads anywhere."""
        try:
            return self._globals[module, name]
        except KeyError:
            raise _Refused(f"a call of {module[:60]!r}, {name[:60]!r}") from None

    def persistent_load(self, key: object) -> Any:
        """Refuse what is stored elsewhere."""
        raise _Refused("a persistent id")


class _StandIn:
    """Has no state that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _Refused("an attempt to change a function")


class _NdarrayClass(_StandIn):
    """numpy.ndarray as an argument; it cannot be called."""

    __slots__ = ()


class _Reconstruct(_StandIn):
    """numpy's _reconstruct: an empty array that gets its content from BUILD."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, typecode: object) -> _Array:
        if type(kind) is not _NdarrayClass or shape != (0,) or typecode not in ("b", b"b"):
            raise _Refused("an array of an unknown class")
        return _Array()


class _FromBuffer(_StandIn):
    """numpy's _frombuffer, which protocol 5 uses."""

    __slots__ = ()

    def __call__(self, buffer: object, dtype: object, shape: object, order: object) -> _Array:
        if order not in ("C", "F", b"C", b"F"):
            raise _Refused("an array of unknown order")
        array = _Array()
        array.__setstate__((1, shape, dtype, order in ("F", b"F"), buffer))
        return array


class _MakeDtype(_StandIn):
    """numpy.dtype: numbers only."""

    __slots__ = ()

    def __call__(self, name: object, align: object, copy: object) -> _Dtype:
        if type(align) not in (int, bool) or type(copy) not in (int, bool):
            raise _Refused("numbers of an unknown type")
        return _Dtype(_text(name))


class _Encode(_StandIn):
    """_codecs.encode(text, "latin1"), in which Python 3 writes bytes into old protocols; each text only once."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, text: object, encoding: object) -> bytes:
        if type(text) is not str or encoding not in ("latin1", b"latin1"):
            raise _Refused("an encoding other than latin1")
        self.left -= len(text)
        if self.left < 0:
            raise _Refused("one text used again and again")
        return text.encode("latin1")


class _EmptyBytes(_StandIn):
    """bytes(), as Python 3 writes b"" into old protocols."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


class _Dtype:
    """What a file says about the numbers of an array: ``name`` such as u1, ``order`` one of < > |."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        if name not in DTYPES:
            raise _Refused(f"numbers of type {name[:60]!r}")
        self.name, self.order = name, "|"

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 8 or state[2:5] != (None, None, None) or state[5:] != (-1, -1, 0):
            raise _Refused("numbers with fields")
        version, self.order = state[0], _text(state[1])
        if type(version) is not int or self.order not in ("<", ">", "|"):
            raise _Refused("numbers of unknown order")

    def dtype(self) -> np.dtype:
        """The dtype of numpy."""
        return np.dtype(f"{self.order}{self.name}")


class _Array:
    """What a file says about an array."""

    __slots__ = ("_buffer", "_dtype", "_order", "_shape")

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise _Refused("an array without its five parts")
        version, shape, dtype, fortran, buffer = state
        if type(version) is not int or type(fortran) not in (int, bool):
            raise _Refused("an array without its five parts")
        if type(dtype) is not _Dtype or type(buffer) not in (bytes, bytearray):
            raise _Refused("an array of objects")
        if type(shape) is not tuple or len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
            raise _Refused("an array of absurd shape")
        number = dtype.dtype()
        if math.prod(shape) * number.itemsize != len(buffer):
            raise _Refused(f"{len(buffer)} bytes for an array of shape {shape} and type {number}")
        self._shape, self._dtype, self._order, self._buffer = shape, number, "F" if fortran else "C", buffer

    def array(self) -> np.ndarray:
        """The array, a view of the file's bytes; raises AttributeError where a file gave no content."""
        array = np.frombuffer(self._buffer, self._dtype).reshape(self._shape, order=self._order)
        array.flags.writeable = False
        return array


def _stand_ins(size: int) -> Mapping[tuple[str, str], _StandIn]:
    """Every name that a batch may use, for a file of ``size`` bytes; numpy 2 renamed numpy.core to numpy._core."""
    encode, empty = _Encode(size), _EmptyBytes()
    table: dict[tuple[str, str], _StandIn] = {
        ("numpy", "ndarray"): _NdarrayClass(),
        ("numpy", "dtype"): _MakeDtype(),
        ("_codecs", "encode"): encode,
        ("builtins", "bytes"): empty,
        ("__builtin__", "bytes"): empty,
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _Reconstruct()
        table[f"{core}.numeric", "_frombuffer"] = _FromBuffer()
    return table


def _value(value: object) -> Any:
    """A value of the dictionary: the array that a stand-in describes, or what it is."""
    if isinstance(value, _StandIn | _Dtype):
        raise _Refused("a function or a type in place of a value")
    return value.array() if isinstance(value, _Array) else value


def _text(value: object) -> str:
    """A text of Python 2 or 3 as str; others are refused."""
    if type(value) is bytes:
        return value.decode("latin1")
    if type(value) is not str:
        raise _Refused(f"a {_kind(value)} where a text belongs")
    return value


def _kind(value: object) -> str:
    """The name of a value's type: never its content, which may refer to itself."""
    return "lone array" if isinstance(value, _Array) else type(value).__name__.lstrip("_").lower()
