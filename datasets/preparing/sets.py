"""What each data set consists of: where its archives are published, their checksums, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_GIB = 2**30


@dataclass(frozen=True)
class Archive:
    """A published file. prefix: the address before its name, "" if it needs an account; size in bytes, if known.

    content: MD5 of the unpacked file, where that identifies it as well (another gzip header, no compression at all).
    """

    name: str
    digest: str
    prefix: str = ""
    size: int | None = None
    algorithm: str = "md5"
    content: str = ""


@dataclass(frozen=True)
class Entry:
    """A data set. kind: how it is prepared, "tree" (one archive), "trees" (a folder an archive), "files" (kept as they
    are) or "imagenet".

    folder: of the result, below the root. command: its words on the command line of scripts/prepare_data.py.
    unpacked: bytes to expect, about; max_bytes, max_members: refused beyond. strip: the archive's own top folder, left
    out. required: files of the result; subfolders, counts: number of folders and of files in a folder of the
    result (of "imagenet": images of a split).
    """

    name: str
    kind: str
    folder: str
    archives: tuple[Archive, ...]
    unpacked: int
    max_bytes: int = 8 * _GIB
    max_members: int = 200_000
    strip: str = ""
    required: tuple[str, ...] = ()
    subfolders: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    command: str = ""
    page: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """What the stamp of an official tree says about its archives."""
        return {archive.name: f"{archive.algorithm}:{archive.digest}" for archive in self.archives}


_KRIZ = "https://www.cs.toronto.edu/~kriz"
_SPEECH = "http://download.tensorflow.org/data"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_LISTS = ("validation_list.txt", "testing_list.txt")
_ZENODO = "https://zenodo.org/records/{}/files"
_CORRUPTIONS = (
    "brightness",
    "contrast",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
)
_ARRAYS = tuple(f"{name}.npy" for name in (*_CORRUPTIONS, "labels"))

ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            "cifar10",
            "tree",
            "cifar-10-batches-py",
            (Archive("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", _KRIZ, 170_498_071),),
            unpacked=187_000_000,
            max_bytes=_GIB,
            max_members=100,
            strip="cifar-10-batches-py",
            required=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        ),
        Entry(
            "cifar100",
            "tree",
            "cifar-100-python",
            (Archive("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", _KRIZ, 169_001_437),),
            unpacked=187_000_000,
            max_bytes=_GIB,
            max_members=100,
            strip="cifar-100-python",
            required=("train", "test", "meta"),
        ),
        Entry(
            "tiny_imagenet",
            "tree",
            "tiny-imagenet-200",
            (
                Archive(
                    "tiny-imagenet-200.zip",
                    "90528d7ca1a48142e341f4ef8d21d0de",
                    "http://cs231n.stanford.edu",
                    248_100_043,
                ),
            ),
            unpacked=500_000_000,
            max_bytes=2 * _GIB,
            strip="tiny-imagenet-200",
            required=("wnids.txt", "words.txt", "val/val_annotations.txt"),
            subfolders={"train": 200},
            counts={"val/images": 10_000},
        ),
        Entry(
            "speech_commands",
            "tree",
            "SpeechCommands/speech_commands_v0.02",
            (
                Archive(
                    "speech_commands_v0.02.tar.gz",
                    "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                    _SPEECH,
                    2_428_923_189,
                    "sha256",
                ),
            ),
            unpacked=3_800_000_000,
            required=_LISTS,
            subfolders={".": 36},
        ),
        Entry(
            "speech_commands_v0.01",
            "tree",
            "SpeechCommands/speech_commands_v0.01",
            (
                Archive(
                    "speech_commands_v0.01.tar.gz",
                    "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
                    _SPEECH,
                    1_489_096_277,
                    "sha256",
                ),
            ),
            unpacked=2_400_000_000,
            required=_LISTS,
            subfolders={".": 31},
            command="speech_commands --version v0.01",
        ),
        Entry(
            "fashion_mnist",
            "files",
            "FashionMNIST/raw",
            (
                Archive(
                    "train-images-idx3-ubyte.gz",
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    _FASHION,
                    26_421_880,
                    content="f4a8712d7a061bf5bd6d2ca38dc4d50a",
                ),
                Archive(
                    "train-labels-idx1-ubyte.gz",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    _FASHION,
                    29_515,
                    content="9018921c3c673c538a1fc5bad174d6f9",
                ),
                Archive(
                    "t10k-images-idx3-ubyte.gz",
                    "bef4ecab320f06d8554ea6380940ec79",
                    _FASHION,
                    4_422_102,
                    content="8181f5470baa50b63fa0f6fddb340f0a",
                ),
                Archive(
                    "t10k-labels-idx1-ubyte.gz",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                    _FASHION,
                    5_148,
                    content="15d484375f8d13e6eb1aabb0c3f46965",
                ),
            ),
            unpacked=31_000_000,
            max_bytes=2**27,
        ),
        Entry(
            "imagenet",
            "imagenet",
            "imagenet",
            (
                Archive("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf"),
                Archive("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622", size=6_744_924_160),
                Archive("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e", size=147_897_477_120),
            ),
            unpacked=155_000_000_000,
            max_bytes=200 * _GIB,
            max_members=1_400_000,
            counts={"train": 1_281_167, "val": 50_000},
            page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        ),
        Entry(
            "cifar10_c",
            "tree",
            "CIFAR-10-C",
            (Archive("CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499", _ZENODO.format(2535967), 2_918_471_680),),
            unpacked=2_920_000_000,
            max_members=100,
            strip="CIFAR-10-C",
            required=_ARRAYS,
        ),
        Entry(
            "cifar100_c",
            "tree",
            "CIFAR-100-C",
            (Archive("CIFAR-100-C.tar", "11f0ed0f1191edbf9fa23466ae6021d3", _ZENODO.format(3555552), 2_918_473_216),),
            unpacked=2_920_000_000,
            max_members=100,
            strip="CIFAR-100-C",
            required=_ARRAYS,
        ),
        Entry(
            "tiny_imagenet_c",
            "tree",
            "Tiny-ImageNet-C",
            (
                Archive(
                    "Tiny-ImageNet-C.tar", "f9c9a9dbdc11469f0b850190f7ad8be1", _ZENODO.format(2536630), 1_794_775_040
                ),
            ),
            unpacked=3_100_000_000,
            max_members=1_000_000,
            strip="Tiny-ImageNet-C",
            subfolders={".": 15, "fog": 5, "fog/1": 200},
        ),
        Entry(
            "imagenet_c",
            "trees",
            "ImageNet-C",
            (
                Archive("noise.tar", "e80562d7f6c3f8834afb1ecf27252745", _ZENODO.format(2235448), 22_565_673_785),
                Archive("blur.tar", "2d8e81fdd8e07fef67b9334fa635e45c", _ZENODO.format(2235448), 7_112_704_951),
                Archive("weather.tar", "33ffea4db4d93fe4a428c40a6ce0c25d", _ZENODO.format(2235448), 12_797_438_995),
                Archive("digital.tar", "89157860d7b10d5797849337ca2e5c03", _ZENODO.format(2235448), 7_757_510_705),
                Archive("extra.tar", "d492dfba5fc162d8ec2c3cd8ee672984", _ZENODO.format(2235448), 15_789_490_144),
            ),
            unpacked=75_000_000_000,
            max_bytes=40 * _GIB,
            max_members=1_200_000,
            subfolders={"noise": 3, "blur": 4, "weather": 4, "digital": 4, "extra": 4},
        ),
    )
}
