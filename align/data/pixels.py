"""Pixel hashes of many images, decoded in several threads and cached, so that later runs need not
decode the images again.

The cache has one file per folder of images; its keys are an image's file and stamp. A damaged line
is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from align.console import Report
from align.data.files.stamp import stamp_of
from align.data.images import DECODING, decoded_hash, pixel_hash
from align.errors import UserError
from align.files import cache_folder
from align.rows import ImageRef, Row

AT_ONCE = 512
"""Images per write to the cache; decoded images are not kept in memory."""
THREADS = 8
SMALL = 4096
"""Bytes of an image; below this size, a thread's overhead is larger than the decoding time."""

Found = dict[ImageRef, str | UserError]
"""{image: its pixel hash, or the error of reading it}"""


def hashes_of(rows: Sequence[Row], report: Report | None = None) -> Found:
    """The pixel hash of every image of the rows. If several processes need the same many images,
    one decodes, the others wait.
    """
    wanted: dict[ImageRef, str] = {}
    for row in rows:
        for image in row.images:
            wanted.setdefault(image, f"row {row.id} of {row.source}")
    found: Found = {}
    for folder, images in _by_folder(wanted).items():
        kept = _Kept(folder)
        known, todo = kept.known(images)
        if len(todo) > AT_ONCE:
            with kept.alone():
                known, todo = kept.known(images)
                found |= known | _hashed(
                    {image: wanted[image] for image in todo}, kept, report, len(found | known), len(wanted)
                )
        else:
            found |= known | _hashed({image: wanted[image] for image in todo}, kept)
    return found


def pixels_of(rows: Sequence[Row]) -> list[list[str]]:
    """For each row, in order, the pixel hashes of its images. Raises UserError for an image that cannot be read."""
    found = hashes_of(rows)
    return [[readable(found[image]) for image in row.images] for row in rows]


def readable(digest: str | UserError) -> str:
    """Return a pixel hash. Raises the stored UserError of an unreadable image."""
    if isinstance(digest, UserError):
        raise digest
    return digest


def _hashed(
    images: Mapping[ImageRef, str], kept: _Kept, report: Report | None = None, before: int = 0, total: int = 0
) -> Found:
    """Decode the images of one folder that are not in the cache; report progress, and write to the cache meanwhile."""
    found: Found = {}
    for batch in _batches(images, AT_ONCE):
        fresh = dict(zip(batch, _decoded([(image, images[image]) for image in batch]), strict=True))
        kept.add(fresh)
        found |= fresh
        if report:
            report("images decoded", before + len(found), total)
    return found


def _decoded(images: Sequence[tuple[ImageRef, str]]) -> list[str | UserError]:
    def one(image: ImageRef, where: str) -> str | UserError:
        try:
            # `_Kept` caches hashes of files; images in memory recur with every benchmark and model,
            # so they use the other cache.
            return decoded_hash(image, where) if image.bytes is None else pixel_hash(image, where)
        except UserError as error:
            return error

    if all(image.bytes is not None and len(image.bytes) < SMALL for image, _ in images):
        return [one(*each) for each in images]
    # Decoding and hashing release the GIL.
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda each: one(*each), images))


def _by_folder(images: Iterable[ImageRef]) -> dict[str, list[ImageRef]]:
    """{folder or archive of the images: images}; "" for bytes in memory."""
    folders: dict[str, list[ImageRef]] = {}
    for image in images:
        file = "" if image.path is None else image.path if image.inside else str(Path(image.path).parent)
        folders.setdefault(file, []).append(image)
    return folders


def _batches(images: Iterable[ImageRef], size: int) -> Iterator[list[ImageRef]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch


class _Kept:
    """The cache of one folder or archive."""

    def __init__(self, folder: str):
        self.path = cache_folder(f"pixels-{DECODING}") / f"{hashlib.sha256(folder.encode()).hexdigest()[:16]}.jsonl"
        self._folder = folder

    def known(self, images: Sequence[ImageRef]) -> tuple[Found, list[ImageRef]]:
        """(Hashes of the images in the cache, images that are not in it)."""
        if not self._folder:
            return {}, list(images)
        kept = {}
        with contextlib.suppress(OSError), self.path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError):
                    *key, digest = json.loads(line)
                    if re.fullmatch("[0-9a-f]{64}", digest):
                        kept[tuple(key)] = digest
        keys = {image: self._key(image) for image in images}
        found: Found = {image: kept[key] for image, key in keys.items() if key in kept}
        return found, [image for image in images if image not in found]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock, so that no other process decodes the same images; no lock if the cache cannot be written."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(f"{self.path}.decoding.lock"))
            yield

    def add(self, found: Found) -> None:
        """Write new hashes to the cache. A cache that cannot be written only costs time."""
        lines = [
            json.dumps([*self._key(image), digest]) + "\n" for image, digest in found.items() if isinstance(digest, str)
        ]
        if self._folder and lines:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{self.path}.lock"), self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(lines))

    def _key(self, image: ImageRef) -> tuple[Any, ...]:
        with contextlib.suppress(OSError):
            return str(image.name), *stamp_of(Path(str(image.path)))
        return (str(image.name),)
