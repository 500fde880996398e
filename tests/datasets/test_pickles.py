"""The reader of CIFAR's pickles: what it reads is right, and nothing that a pickle says is ever run."""

import codecs
import io
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

from datasets.formats.pickles import INSTRUCTIONS, load_batch
from randomix.errors import DataError
from tests.datasets.cifar_files import python2

RNG = np.random.default_rng(0)
BATCH = {
    "data": RNG.integers(0, 256, (7, 12), dtype=np.uint8),
    "labels": [int(n) for n in RNG.integers(0, 100_000, 7)],
    "batch_label": "training batch 1 of 5",
    "filenames": [f"image_{i}.png" for i in range(7)],
    "num_vis": 12,
    "scale": 0.5,
    "flag": True,
    "nothing": None,
}


def load(data):
    return load_batch(data, "file", "mend it")


def same(read, batch):
    assert list(read) == [k.decode() if isinstance(k, bytes) else k for k in batch]
    for value, expected in zip(read.values(), batch.values(), strict=True):
        assert type(value) is type(expected)
        if isinstance(value, np.ndarray):
            assert value.dtype == expected.dtype and not value.flags.writeable and np.array_equal(value, expected)
        else:
            assert value == expected


@pytest.mark.parametrize("protocol", range(6))
def test_equals_the_standard_reader(protocol):
    as_bytes = {k.encode(): [n.encode() for n in v] if k == "filenames" else v for k, v in BATCH.items()}
    for batch in (
        BATCH,
        as_bytes,
        BATCH | {"data": np.asfortranarray(BATCH["data"])},
        BATCH | {"batch_label": b""},
        {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in ("<i8", ">u4", "<f4", "?", "i1")},
        {"empty": np.zeros((0, 3), np.uint8), "scalar": np.array(3)},
    ):
        same(load(pickle.dumps(batch, protocol)), batch)


def test_reads_what_python_2_wrote():
    batch = {key: BATCH[key] for key in ("batch_label", "labels", "data", "filenames")}
    data = python2(batch)
    theirs = pickle.loads(data, encoding="bytes")  # ours to trust: the standard reader agrees about the format
    assert np.array_equal(theirs[b"data"], BATCH["data"]) and theirs[b"labels"] == BATCH["labels"]
    expected = batch | {"batch_label": b"training batch 1 of 5", "filenames": [n.encode() for n in batch["filenames"]]}
    same(load(data), expected)


def refused(data):
    with pytest.raises(DataError) as caught:
        load(data)
    text = str(caught.value)
    assert text.startswith("file: expected a pickled dictionary") and text.endswith(
        "nothing of it was executed; mend it"
    )
    assert "\n" not in text and len(text) < 300
    return text


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    command = f"touch {marker}"
    return {
        "posix.system": Calls(os.system, command),
        "subprocess.Popen": Calls(subprocess.Popen, command, -1, None, None, None, None, None, True, True),
        "builtins.exec": Calls(exec, f"open({str(marker)!r}, 'w')"),
        "builtins.eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.open": Calls(open, str(marker), "w"),
        "builtins.getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "numpy.save": Calls(np.save, str(marker), np.zeros(2)),
        "numpy.load": Calls(np.load, str(marker), None, True),
        "numpy.fromfile": Calls(np.memmap, str(marker), np.uint8, "w+", 0, (8,)),
        "codecs.open": Calls(codecs.open, str(marker), "w"),
        "codec that runs": Calls(codecs.encode, "x", "rot13"),
        "io.open": Calls(io.FileIO, str(marker), "w"),
        "pickle in pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", attacks(""))
def test_no_call_is_ever_made(tmp_path, name, protocol):
    marker = tmp_path / "marker.npy"
    attack = attacks(marker)[name]
    for value in (attack, {"data": attack}, {"labels": [attack]}):
        refused(pickle.dumps(value, protocol))
        assert not list(tmp_path.iterdir())


def test_the_attacks_do_work_where_nothing_stops_them(tmp_path):
    marker = tmp_path / "marker.npy"
    for name in ("posix.system", "builtins.exec", "numpy.save", "pickle in pickle"):
        pickle.loads(pickle.dumps(attacks(marker)[name]))
        assert marker.exists(), name
        marker.unlink()


BYTES = b"cbuiltins\nbytes\n"
ND = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
U1 = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
EMPTY = RECONSTRUCT + b"(" + ND + b"(I0\ntS'b'\ntR"


def array(shape=b"(I2\nt", dtype=U1, fortran=b"I0\n", buffer=b"S'ab'\n", version=b"I1\n"):
    return EMPTY + b"(" + version + shape + dtype + fortran + buffer + b"tb"


def under(value):
    return b"(dS'data'\n" + value + b"s."


def dotted(module, name):
    return b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93."


def test_hand_written_pickles_are_right():
    assert np.array_equal(load(under(array()))["data"], np.frombuffer(b"ab", np.uint8))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (dotted(b"numpy", b"core.multiarray._reconstruct"), "a call of 'numpy', 'core.multiarray._reconstruct'"),
        (dotted(b"numpy", b"ndarray.__class__"), "a call of"),
        (dotted(b"numpy.core.multiarray", b"_reconstruct.__globals__"), "a call of"),
        (dotted(b"_codecs", b"encode.__self__"), "a call of"),
        (dotted(b"builtins", b"bytes.__subclasses__"), "a call of"),
        (b"cos\nsystem\n(S'true'\ntR.", "a call of 'os', 'system'"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "a call of"),
        (b"(S'true'\nios\nsystem\n.", "the instruction INST"),
        (b"(cos\nsystem\nS'true'\no.", "the instruction OBJ"),
        (b"\x80\x02" + ND + b")\x81.", "the instruction NEWOBJ"),
        (b"\x80\x04" + ND + b")}\x92.", "the instruction NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"Pid\n.", "the instruction PERSID"),
        (b"\x80\x02K\x01Q.", "the instruction BINPERSID"),
        (b"\x80\x05\x97.", "the instruction NEXT_BUFFER"),
        # the functions that are allowed, with other arguments, other states, or where they do not belong
        (under(RECONSTRUCT + b"(" + BYTES + b"(I0\ntS'b'\ntR"), "an array of an unknown class"),
        (under(RECONSTRUCT + b"(" + ND + b"(I9\ntS'b'\ntR"), "an array of an unknown class"),
        (under(RECONSTRUCT + b"(" + ND + b"(I0\ntS'O'\ntR"), "an array of an unknown class"),
        (under(ND + b"(I9\ntR"), "damaged data (TypeError)"),
        (under(BYTES + b"(I999999999999\ntR"), "damaged data (TypeError)"),
        (under(b"c_codecs\nencode\n(Vx\nVzip\ntR"), "an encoding other than latin1"),
        (under(b"c_codecs\nencode\n(I1\nVlatin1\ntR"), "an encoding other than latin1"),
        (under(RECONSTRUCT + b"(dS'__code__'\nI1\nsb"), "an attempt to change a function"),
        (under(RECONSTRUCT + b"(N(dS'__defaults__'\nNstb"), "an attempt to change a function"),
        (under(BYTES + b"(dS'a'\nI1\nsb"), "an attempt to change a function"),
        (under(b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"), "numbers of type 'O8'"),
        (under(b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR"), "numbers of type 'V8'"),
        (under(b"cnumpy\ndtype\n((lS'u1'\naI0\nI1\ntR"), "a list where a text belongs"),
        (under(U1 + b"(I3\nS'|'\nN(S'a'\nt(dI-1\nI-1\nI0\ntb"), "numbers with fields"),
        (under(U1 + b"(I3\nS'!'\nNNNI-1\nI-1\nI0\ntb"), "numbers of unknown order"),
        (under(array(dtype=b"N")), "an array of objects"),
        (under(array(buffer=b"(lI1\naI2\na")), "an array of objects"),
        (under(array(shape=b"(I3\nt")), "2 bytes for an array of shape (3,) and type uint8"),
        (under(array(shape=b"(I-1\nI-2\nt")), "an array of absurd shape"),
        (under(array(shape=b"(I1099511627776\nt")), "an array of absurd shape"),
        (under(array(shape=b"(I1\n" + b"I1\n" * 8 + b"t", buffer=b"S'a'\n")), "an array of absurd shape"),
        (under(array(shape=b"I2\n")), "an array of absurd shape"),
        (under(EMPTY + b"(I1\ntb"), "an array without its five parts"),
        (under(EMPTY), "damaged data (AttributeError)"),
        (under(ND), "a function or a type in place of a value"),
        (under(U1), "a function or a type in place of a value"),
        (b"(lI1\na.", "a list"),
        (array() + b".", "a lone array"),
        (b"(dI1\nI2\ns.", "a key other than a text"),
        # not a pickle, not all of one, or more than one
        (b"", "damaged data"),
        (b"<html>", "damaged data"),
        (b"\x80\x02}q\x01", "damaged data"),
        (b"\x80\x09}.", "damaged data"),
        (pickle.dumps(BATCH)[:-9], "damaged data"),
        (pickle.dumps(BATCH) + b"x", "1 bytes after its end"),
        # what would take all memory or the whole stack
        (b"\x80\x02}r\xff\xff\xff\x7f.", "a table of absurd size"),
        (b"(dp99999999999\n.", "a table of absurd size"),
        (b"(dI" + b"9" * 5000 + b"\n.", "damaged data"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".", "damaged data"),
        (b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"Ns.", "a key other than a text"),
        (b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".", "a list"),
        (
            b"\x80\x02]"
            + b"".join(b"q" + bytes([i]) + b"]h" + bytes([i]) + b"ah" + bytes([i]) + b"a" for i in range(100))
            + b".",
            "a list",
        ),
    ],
)
def test_refused(data, found):
    assert found in refused(data)


def test_one_text_encoded_again_and_again():
    """10 MB that a file holds once would become 4 GB."""
    call = b"c_codecs\nencode\nh\x01h\x02\x86R"
    data = b"(dq\x00X\x06\x00\x00\x00latin1q\x02V" + b"a" * 10_000_000 + b"\nq\x01](" + call * 400 + b"es."
    assert "one text used again and again" in refused(b"\x80\x02" + data)


def doubled(times):
    """A list of t1 = (), t2 = (t1, t1), t3 = (t2, t2), ...: each is written once, and hash() takes 2^times steps."""
    return b"](" + b")q\x01" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(1, times)) + b"e"


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"}", b"Ns"), (b"}(U\x01aN", b"Nu"), (b"(U\x01aN", b"Nd"), (b"}U\x01a}", b"Nss"), (b"}", b"q\x50h\x50Ns")],
)
def test_keys_that_take_for_ever_to_hash(before, after):
    """In another process: hash() listens to no signal."""
    data = b"\x80\x02" + doubled(60) + before + b"h\x3c" + after + b"."
    code = "import sys; from datasets.formats.pickles import load_batch; load_batch(sys.stdin.buffer.read(), 'f', 'm')"
    result = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60)
    assert result.returncode == 1 and b"a key other than a text" in result.stderr, result.stderr


def test_shared_and_nested_values_are_no_keys():
    pair = (1, 2)
    batch = {"a": (pair, pair), "b": [pair, {"c": pair, b"d": {}}], "e": {"f": [b"g"] * 3}}
    for protocol in range(6):
        same(load(pickle.dumps(batch, protocol)), batch)


def test_a_file_of_absurd_size(monkeypatch):
    monkeypatch.setattr("datasets.formats.pickles.MAX_BYTES", 100)
    assert "bytes, more than 100" in refused(pickle.dumps(BATCH))
    monkeypatch.setattr("datasets.formats.pickles.MAX_BYTES", 10_000)
    monkeypatch.setattr("datasets.formats.pickles.MAX_INSTRUCTIONS", 20)
    assert "far more parts" in refused(pickle.dumps(BATCH))


def test_instructions_exist_and_make_no_objects():
    import pickletools

    assert {opcode.name for opcode in pickletools.opcodes} >= INSTRUCTIONS
    assert not {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"} & INSTRUCTIONS


def test_mutated_pickles_are_read_or_refused():
    """Bytes changed, cut, or spliced from other pickles: never another error, never another kind of value."""
    seeds = [pickle.dumps(BATCH, protocol) for protocol in range(6)] + [under(array())]
    seeds += [pickle.dumps(attack) for attack in (Calls(os.getcwd), Calls(np.zeros, 3))]
    rng, outcomes = random.Random(0), {"read": 0, "refused": 0}
    for _ in range(6000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            place, other = rng.randrange(len(data)), rng.choice(seeds)
            part = rng.randrange(len(other))
            data[place : place + rng.choice([0, 1, 1, 8])] = rng.choice(
                [bytes([rng.randrange(256)]), b"", other[part : part + rng.randint(1, 30)]]
            )
            data = data or bytearray(b".")
        try:
            read = load(bytes(data))
        except DataError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            kinds = {type(value) for value in read.values()}
            assert kinds <= {np.ndarray, list, dict, tuple, str, bytes, int, float, bool, type(None), bytearray}
            outcomes["read"] += 1
    assert min(outcomes.values()) > 100, outcomes
