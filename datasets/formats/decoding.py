"""Image files to pixels, strictly: an image that is not whole, or not what it claims to be, is an error with its name.

What the pixels are follows torchvision's ``Image.open(path).convert("RGB")``, with which published numbers were made:
grey is repeated, CMYK converted, transparency dropped, the first frame of an animation taken, and an EXIF orientation
is NOT applied. Only 16-bit grey differs: its high byte is taken, where PIL would turn all bright pixels white.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from randomix.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # PIL's others include EPS, which runs Ghostscript
MAX_PIXELS = 89_478_485  # PIL's own bound: 256 MiB of RGB; checked here because PIL only warns up to twice as much


def decode_rgb(
    source: str | os.PathLike[str] | bytes, name: str | None = None, formats: Sequence[str] = FORMATS
) -> np.ndarray:
    """The image in a file, or in the bytes of one, as RGB pixels (H, W, 3) uint8, read-only.

    name: what messages call it, by default its path. formats: those of PIL that it may have, whatever its suffix.
    Raises DataError for an image that cannot be read, is truncated, of another format, or has too many pixels.
    """
    name = name or ("image" if isinstance(source, bytes) else os.fspath(source))
    with image_errors(name):
        return np.asarray(to_rgb(open_image(source, formats)))


def open_image(source: str | os.PathLike[str] | bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    """A PIL image of which only the header was decoded; to be used inside of ``image_errors``."""
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another package may have set it: half an image would go unnoticed
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    image = Image.open(io.BytesIO(data), formats=formats)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode a PIL image to mode RGB; to be used inside of ``image_errors``."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # "I": Pillow before 11
        from PIL import Image

        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}), which have no set range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns about the direct way
    image.load()  # also where it is RGB already and convert() would only copy
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def image_errors(name: str) -> Iterator[None]:
    """Turn whatever PIL raises in the block into a DataError of one line about the image ``name``."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise OSError, SyntaxError, ValueError, struct.error, IndexError, ...
        found = "not an image of a known format" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{name}: cannot be read ({error.strerror}); make it readable, or remove it") from error
        raise DataError(
            f"{name}: expected a whole image, found: {' '.join(found.split()) or type(error).__name__}; "
            "replace or remove the file"
        ) from error
