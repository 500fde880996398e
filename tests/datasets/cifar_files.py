"""CIFAR's official files, written by hand: pickles as Python 2 left them, and binary records."""

import hashlib

import numpy as np

from datasets.cifar import FORMS, NAMES

RECORD = {"cifar10": ["labels"], "cifar100": ["coarse_labels", "fine_labels"]}  # the label bytes before the pixels
NAME_FILES = {
    "labels": "batches.meta.txt",
    "coarse_labels": "coarse_label_names.txt",
    "fine_labels": "fine_label_names.txt",
}


def python2(batch):
    """A pickle as Python 2's cPickle and numpy 1 wrote it: protocol 2, texts and pixels as str."""
    out, puts = [b"\x80\x02}q\x01("], iter(range(2, 2**31))

    def put(data):
        number = next(puts)
        out.append(data + (b"q" + bytes([number]) if number < 256 else b"r" + number.to_bytes(4, "little")))

    def number(value):
        code, size = (b"K", 1) if value < 256 else (b"M", 2) if value < 2**16 else (b"J", 4)
        return code + value.to_bytes(size, "little")

    def text(value):
        value = value.encode() if isinstance(value, str) else value
        short = len(value) < 256
        put((b"U" + bytes([len(value)]) if short else b"T" + len(value).to_bytes(4, "little")) + value)

    for key, value in batch.items():
        text(key)
        if isinstance(value, np.ndarray):
            put(b"cnumpy.core.multiarray\n_reconstruct\n")
            put(b"cnumpy\nndarray\n")
            out.append(b"K\x00\x85U\x01b\x87R(K\x01" + number(value.shape[0]) + number(value.shape[1]) + b"\x86")
            out.append(
                b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb\x89"
            )
            text(value.tobytes())
            out.append(b"tb")
        elif isinstance(value, list):
            put(b"]")
            out.append(b"(")
            for item in value:
                text(item) if isinstance(item, str) else out.append(number(item))
            out.append(b"e")
        else:
            out.append(number(value)) if isinstance(value, int) else text(value)
    return b"".join(out) + b"u."


def official_names(name):
    """The files of class names of the python version: byte for byte the official ones."""
    if name == "cifar10":
        meta = {"num_cases_per_batch": 10000, "label_names": NAMES["labels"].split(), "num_vis": 3072}
    else:
        kinds = ("fine_labels", "coarse_labels")
        meta = {kind.replace("labels", "label_names"): NAMES[kind].split() for kind in kinds}
    return python2(meta)


def toy(name, train=20, test=10, seed=0):
    """Planes (N, 3072) and labels of every file of the python version; ``train`` and ``test`` are images a file."""
    rng, content = np.random.default_rng(seed), {}
    form = FORMS[name][0]
    for file in (*form.train, *form.test):
        count = train if file in form.train else test
        labels = rng.permutation(np.arange(count) % (10 if name == "cifar10" else 100))
        kinds = {"labels": labels} if name == "cifar10" else {"coarse_labels": labels // 5, "fine_labels": labels}
        content[file] = rng.integers(0, 256, (count, 3072), dtype=np.uint8), kinds
    return content


def write_python(root, name, content, dump=python2):
    """The python version below ``root``; returns its folder."""
    folder = root / FORMS[name][0].folder
    folder.mkdir(parents=True)
    (folder / FORMS[name][0].names[0]).write_bytes(official_names(name))
    for file, (planes, labels) in content.items():
        lists = {kind: values.tolist() for kind, values in labels.items()}
        names = [f"image_{i:06d}.png" for i in range(len(planes))]
        (folder / file).write_bytes(dump({"batch_label": file, **lists, "data": planes, "filenames": names}))
    return folder


def write_binary(root, name, content):
    """The binary version below ``root``; returns its folder."""
    form = FORMS[name][1]
    folder = root / form.folder
    folder.mkdir(parents=True)
    for kind in RECORD[name]:
        (folder / NAME_FILES[kind]).write_text("\n".join(NAMES[kind].split()) + "\n\n")
    for file, (planes, labels) in content.items():
        records = b"".join(
            bytes([int(labels[kind][i]) for kind in RECORD[name]]) + planes[i].tobytes() for i in range(len(planes))
        )
        (folder / f"{file}.bin").write_bytes(records)
    return folder


def md5(folder):
    """The MD5 of each file of a folder."""
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
