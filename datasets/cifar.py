"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour photographs, 32 x 32, of 10 or 100 kinds of things.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Both official forms are read: the python
version (pickles, through ``datasets.formats.pickles``, each after its MD5) and the binary version (records of label
bytes and 3,072 bytes of red, green and blue planes), for whose files no checksums are published: their sizes, labels,
names and class counts are compared instead.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from datasets.corrupted.generated import cache_folder
from datasets.corrupted.npy_files import NpyFiles
from datasets.corrupted.published import roots
from datasets.formats.pickles import MAX_BYTES, load_batch
from datasets.integrity import expect_digest
from datasets.options import channel_values, check_train_size, parse_options
from datasets.places import find_folder, prepare_command
from datasets.resident import ArrayData
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError

TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # CIFAR-10's for both, as in FMix
PIXELS = 3 * 32 * 32
TRAIN, TEST = 50_000, 10_000  # images
LABELS = {"cifar10": ("labels",), "cifar100": ("coarse_labels", "fine_labels")}  # in the order of a binary record

MD5 = {  # of the python version's files, as torchvision has them
    "cifar10": {
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "meta": "7973b15100ade9c7d40fb424638fde48",
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
NAMES = {  # with these the two pickles of names have the MD5s above: the tests write them
    "labels": "airplane automobile bird cat deer dog frog horse ship truck",
    "fine_labels": """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
        dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
        lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
        pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
        shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
    "coarse_labels": """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
        household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
        large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
        vehicles_1 vehicles_2""",
}


@dataclass(frozen=True)
class Form:
    """One way in which a set is published: its folder and the files of the two splits and of the class names."""

    folder: str
    binary: bool
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: tuple[str, ...]  # one file, or in the binary version one of each kind of label


FIVE = tuple(f"data_batch_{i}" for i in range(1, 6))
FORMS = {
    "cifar10": (
        Form("cifar-10-batches-py", False, FIVE, ("test_batch",), ("batches.meta",)),
        Form(
            "cifar-10-batches-bin",
            True,
            tuple(f"{name}.bin" for name in FIVE),
            ("test_batch.bin",),
            ("batches.meta.txt",),
        ),
    ),
    "cifar100": (
        Form("cifar-100-python", False, ("train",), ("test",), ("meta",)),
        Form(
            "cifar-100-binary", True, ("train.bin",), ("test.bin",), ("coarse_label_names.txt", "fine_label_names.txt")
        ),
    ),
}


def build(config: Mapping[str, Any]) -> ArrayData:
    """CIFAR-10 or CIFAR-100 with options root, corrupted_root, train_size, crop_padding, flip, mean, std, verify.

    CIFAR-100 takes ``labels`` too: fine (100 classes) or coarse (20). Raises DataError for missing or damaged files.
    """
    name = config["name"]
    options = parse_options(
        config, extra=("root", "corrupted_root", "mean", "std", *(["labels"] if name == "cifar100" else []))
    )
    mean, std = channel_values(config, "mean", MEAN), channel_values(config, "std", STD)
    kind = _kind_of_labels(name, config.get("labels", "fine"))
    folder, form = _find(name, config.get("root"))
    fix = prepare_command(name, config.get("root"))
    fix += ", or set dataset.verify=false to use another set of this format" if options.verify else ""
    files = _Files(folder, {} if form.binary else MD5[name], options.verify, fix)
    names = _class_names(files, name, form)
    train, test = (_read_split(files, form, part, names) for part in (form.train, form.test))
    official = _compare(files, name, form, names, {"train": train, "test": test})
    labels = train.labels[kind]
    size = check_train_size(name, options.train_size, len(labels))
    chosen = balanced_subset(labels, size, f"{name}.train") if size < len(labels) else slice(None)
    return ArrayData(
        name=name,
        class_names=names[kind],
        train_images=train.images[chosen],
        train_labels=labels[chosen],
        test_images=test.images,
        test_labels=test.labels[kind],
        mean=mean,
        std=std,
        crop_padding=options.crop_padding,
        flip=options.flip,
        source={
            "source": TITLES[name] if official else f"files in {TITLES[name]}'s format, not the official ones",
            "version": "binary" if form.binary else "python",
            "verified": official and ("sizes, labels, class counts and names" if form.binary else "MD5 of every file"),
            "md5": files.md5,
            "synthetic": False,
        },
        published=NpyFiles(f"{TITLES[name]}-C", f"{name}_c", roots(config), test.images, test.labels[LABELS[name][-1]]),
        cache=cache_folder(config, folder),
    )


def _kind_of_labels(name: str, labels: object) -> str:
    if labels not in ("fine", "coarse"):
        raise ConfigError(f"dataset.labels is {labels!r}, expected fine or coarse")
    return "labels" if name == "cifar10" else f"{labels}_labels"


def _find(name: str, root: str | None) -> tuple[Path, Form]:
    """The first folder that holds files of a form, below the root or the root itself; raises DataError."""

    def holds(folder: Path, form: Form) -> bool:
        return any((folder / file).is_file() for file in (*form.train, *form.test))

    places = [place for form in FORMS[name] for place in (form.folder, ".")]
    folder = find_folder(name, root, places, lambda folder: any(holds(folder, form) for form in FORMS[name]))
    return folder, next(form for form in FORMS[name] if holds(folder, form))


@dataclass(frozen=True)
class _Files:
    """Reads files of a folder whole, so that what was checked is what is used."""

    folder: Path
    expected: Mapping[str, str]  # MD5 by name
    verify: bool
    fix: str
    md5: dict[str, str] = field(default_factory=dict)  # of what was read

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises DataError for a missing one and, with ``verify``, for a wrong MD5."""
        path = self.folder / name
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {self.fix}") from error
        if size > MAX_BYTES:
            raise DataError(f"{path}: expected at most {MAX_BYTES} bytes, found {size}; {self.fix}")
        self.md5[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if self.verify and name in self.expected:
            expect_digest(str(path), self.md5[name], self.expected[name], "MD5", self.fix)
        return data

    def error(self, name: str, expected: str, found: str) -> DataError:
        """What to raise for a file that is not as expected."""
        return DataError(f"{self.folder / name}: expected {expected}, found {found}; {self.fix}")


@dataclass(frozen=True)
class _Split:
    """Images (N, 32, 32, 3) uint8, labels (N,) int64 by kind, and how many came from each file."""

    images: np.ndarray
    labels: dict[str, np.ndarray]
    counts: dict[str, int]


def _class_names(files: _Files, name: str, form: Form) -> dict[str, tuple[str, ...]]:
    """The class names of each kind of label; raises DataError."""
    found: dict[str, list[Any]] = {}
    if form.binary:
        for kind, file in zip(LABELS[name], form.names, strict=True):
            lines = files.read(file).decode("latin1").splitlines()
            found[kind] = [line.strip() for line in lines if line.strip()]
    else:
        batch = load_batch(files.read(form.names[0]), str(files.folder / form.names[0]), files.fix)
        for kind in LABELS[name]:
            entry = batch.get(kind.replace("labels", "label_names"))
            found[kind] = [n.decode("latin1") if type(n) is bytes else n for n in entry] if type(entry) is list else []
    for i, (kind, names) in enumerate(found.items()):
        texts = all(type(n) is str and n.isprintable() for n in names)
        if not texts or len(set(names)) != max(len(names), 2):
            file = form.names[i if form.binary else 0]
            raise files.error(file, f"two or more different class names for the {kind}", f"a list of {len(names)}")
    return {kind: tuple(names) for kind, names in found.items()}


def _read_split(files: _Files, form: Form, part: Sequence[str], names: Mapping[str, Sequence[str]]) -> _Split:
    """The files of one split, one after the other; raises DataError for what does not fit together."""
    parse = _parse_binary if form.binary else _parse_python
    images, labels, counts = [], {kind: [] for kind in names}, {}
    for file in part:
        planes, found = parse(files, file, tuple(names))
        for kind, values in found.items():
            if len(values) != len(planes):
                raise files.error(file, f"one of the {kind} an image", f"{len(planes)} images and {len(values)} labels")
            wrong = values[(values < 0) | (values >= len(names[kind]))]
            if wrong.size:
                raise files.error(file, f"{kind} from 0 to {len(names[kind]) - 1}", str(wrong[0]))
            labels[kind].append(values)
        images.append(_interleave(planes))
        counts[file] = len(planes)
    whole = images[0] if len(images) == 1 else np.concatenate(images)
    return _Split(whole, {kind: np.concatenate(values) for kind, values in labels.items()}, counts)


def _parse_python(files: _Files, file: str, kinds: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Planes (N, 3072) uint8 and labels (N,) int64 of a pickled batch."""
    batch = load_batch(files.read(file), str(files.folder / file), files.fix)
    planes = batch.get("data")
    if not isinstance(planes, np.ndarray):
        raise files.error(file, "'data' as an array", f"a value of type {type(planes).__name__}")
    if planes.dtype != np.uint8 or planes.shape[1:] != (PIXELS,) or not planes.size:
        raise files.error(file, f"'data' as uint8 of shape (N, {PIXELS})", f"{planes.dtype} of shape {planes.shape}")
    return planes, {kind: _labels(files, file, kind, batch.get(kind)) for kind in kinds}


def _labels(files: _Files, file: str, kind: str, values: Any) -> np.ndarray:
    """A list of small whole numbers, or an array of them, as int64."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        return values.astype(np.int64)
    if type(values) is not list or not all(type(v) is int and abs(v) < 2**31 for v in values):
        raise files.error(file, f"{kind!r} as a list of whole numbers", type(values).__name__)
    return np.array(values, np.int64)


def _parse_binary(files: _Files, file: str, kinds: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Planes (N, 3072) uint8 and labels (N,) int64 of a file of records."""
    data, record = files.read(file), len(kinds) + PIXELS
    if not data or len(data) % record:
        raise files.error(file, f"records of {record} bytes", f"{len(data)} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, len(kinds) :], {kind: records[:, i].astype(np.int64) for i, kind in enumerate(kinds)}


def _interleave(planes: np.ndarray) -> np.ndarray:
    """(N, 3072), red, green and blue planes, to (N, 32, 32, 3); a plane at a time is twice as fast as a transpose."""
    images = np.empty((len(planes), PIXELS // 3, 3), np.uint8)
    for channel, plane in enumerate(np.split(planes, 3, axis=1)):
        images[:, :, channel] = plane
    return images.reshape(-1, 32, 32, 3)


def _compare(
    files: _Files, name: str, form: Form, names: Mapping[str, Sequence[str]], splits: Mapping[str, _Split]
) -> bool:
    """Whether these are the official files; if not, DataError with ``verify`` and one printed warning without."""
    if form.binary:
        problem = next(_differences(files, name, form, names, splits), None)
        if problem is not None and files.verify:
            raise problem
        other = str(problem).partition("; ")[0] if problem else ""
    else:  # with ``verify`` each was compared before it was opened
        other = ", ".join(file for file, md5 in MD5[name].items() if files.md5[file] != md5)
        other = other and f"{files.folder}: {other} not of {TITLES[name]}"
    if other:
        print(f"warning: {other}; used because dataset.verify=false", file=sys.stderr)
    return not other


def _differences(
    files: _Files, name: str, form: Form, names: Mapping[str, Sequence[str]], splits: Mapping[str, _Split]
) -> Iterator[DataError]:
    """What tells files of the binary version from the official ones, as far as can be told without checksums."""
    for kind, file in zip(LABELS[name], form.names, strict=True):
        wrong = [(want, got) for want, got in zip_longest(NAMES[kind].split(), names[kind]) if want != got]
        if wrong:
            yield files.error(file, f"the class {wrong[0][0]} at its place", str(wrong[0][1]))
    for part, split, total in ((form.train, splits["train"], TRAIN), (form.test, splits["test"], TEST)):
        for file in part:
            if split.counts[file] != total // len(part):
                yield files.error(file, f"{total // len(part)} images", f"{split.counts[file]}")
        for kind, labels in split.labels.items():
            share = total // len(names[kind])
            for label, count in enumerate(np.bincount(labels, minlength=len(names[kind]))):
                if count != share:
                    yield files.error(
                        part[-1],
                        f"{share} images of each class in {', '.join(part)}",
                        f"{count} of {names[kind][label]}",
                    )
        if name == "cifar100":
            pairs = np.unique(np.stack([split.labels["fine_labels"], split.labels["coarse_labels"]]), axis=1)
            if pairs.shape[1] != len(names["fine_labels"]):
                yield files.error(part[-1], "one coarse label for each fine label", f"{pairs.shape[1]} pairs of them")
