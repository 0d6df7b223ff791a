"""Images written into a table as text: base64, or a data URL (`data:image/png;base64,...`).

A row stores the location of its image, so each image is written once to the user's cache, under the hash
of its content.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from align.data.hints import option
from align.errors import UserError
from align.files import cache_folder, write_bytes

BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of PNG, JPEG, GIF, WebP, BMP and TIFF."""
BRANDS, BRAND_AT = (b"ftypavif", b"ftypheic", b"ftypmif1"), 4
"""The first bytes of AVIF and HEIC, after a length."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""The beginning of a URL. `C://` is a drive."""
DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
SHORTEST = 48
"""Characters of the smallest image in base64. A shorter text may be a file's name."""


def is_image(content: bytes) -> bool:
    """Whether bytes begin like an image file."""
    return content.startswith(BEGINNINGS) or content[BRAND_AT:].startswith(BRANDS)


def is_written_out(text: str) -> bool:
    """Whether the text of an image column is the image and not its name."""
    return text[:5].lower() == "data:" or is_base64(text)


def is_base64(text: str) -> bool:
    """Whether a text is an image file in base64."""
    if len(text) < SHORTEST:
        return False
    begins = "".join(text[:SHORTEST].split())
    try:
        begun = base64.b64decode(begins[: len(begins) // 4 * 4], validate=True)
    except ValueError:  # also binascii.Error; a text that is not ASCII
        return False
    return is_image(begun) and BASE64.fullmatch(text) is not None


def written_out(text: str, what: str) -> Path:
    """The file in the cache with the image that a text contains. Raises UserError that begins with `what`."""
    found = DATA_URL.match(text)
    if found is None and text[:5].lower() == "data:":
        raise UserError(f"{what} begins with `data:` but is not a data URL; write data:image/png;base64,<image>")
    if found and (not found[1].lower().startswith("image/") or ";base64" not in found[2].lower()):
        raise UserError(
            f"{what} is a data URL of {found[1] or 'text'}{found[2]}; expected data:image/<format>;base64,<image>"
        )
    try:
        content = base64.b64decode("".join(text[found.end() if found else 0 :].split()), validate=True)
    except ValueError as error:
        raise UserError(f"{what} is not valid base64: {error}; write the image again") from error
    name = hashlib.sha256(content).hexdigest()
    file = cache_folder("images") / name[:2] / name
    if not file.is_file() or file.stat().st_size != len(content):
        write_bytes(file, content)
    return file.absolute()


def refuse_url(name: str, what: str) -> None:
    """Raise UserError for the URL of an image: nothing is downloaded while rows are read."""
    if URL.match(name):
        raise UserError(
            f"{what} is the URL {name[:80]!r}, and images are not downloaded; download them and give their paths "
            f"instead, relative to {option('image_root=<folder>')}"
        )
