"""Damage to the bytes of a file, to the text of an index file, and to an archive."""

from __future__ import annotations

import contextlib
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from tests.support.damages import Damage
from tests.support.odd_images import png
from tests.support.set_files import IMAGE, add_member, write_zip


def damage_bytes(content: bytes, how: Damage) -> bytes:
    """These bytes after one change: shortened, a bit changed, some bytes added or removed."""
    what, place, *rest = how
    at = place % (len(content) + 1)
    if what == "cut":
        return content[:at]
    if what == "flip":
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ (1 << rest[0])]) + content[at + 1 :] if content else content
    if what == "insert":
        return content[:at] + rest[0] + content[at:]
    return content[:at] + content[at + rest[0] :]


def rewritten(content: bytes, how: str) -> bytes:
    """An index file in another encoding, with other line ends, or without what was in it."""
    if how in ("empty", "brackets"):
        return b"[" * 100_000 if how == "brackets" else b""
    if how == "spaces behind":
        return content + b" \n\n"
    if how == "mark":
        return b"\xef\xbb\xbf" + content
    if how.endswith("lines"):
        return content.replace(b"\n", b"\r" if how.startswith("mac") else b"\r\n")
    try:
        text = content.decode()
    except UnicodeDecodeError:  # parquet
        return content
    return text.replace("a", "\u00e9", 1).encode(how, "replace")


def damage_archive(file: Path, how: Damage, outside: Path) -> None:
    """Damage a zip or tar archive; a link in it leads to the file outside."""
    what, *rest = how
    if what == "bytes":
        file.write_bytes(damage_bytes(file.read_bytes(), rest[0]))
    elif what == "no archive":
        file.write_bytes(b"<html>not found</html>")
    elif file.suffix == ".tar":
        _damage_tar(file, what, rest[0], outside)
    else:
        _damage_zip(file, what, rest[0])


def _damage_tar(file: Path, what: str, place: int, outside: Path) -> None:
    with contextlib.suppress(tarfile.TarError), tarfile.open(file, "a") as archive:
        names = archive.getnames()
        if what == "links out":
            info = tarfile.TarInfo("./link.png")
            info.type, info.linkname = tarfile.SYMTYPE, str(outside)
            archive.addfile(info)
        elif what == "member twice" and names:
            add_member(archive, names[place % len(names)], png(1, 2, 3))
        else:
            add_member(archive, "../outside.png" if what == "member above" else "/outside.png", png(1, 2, 3))


def _damage_zip(file: Path, what: str, place: int) -> None:
    members: list[tuple[str, bytes]] = []
    with (
        contextlib.suppress(zipfile.BadZipFile, RuntimeError, OSError, zlib.error),
        zipfile.ZipFile(file) as archive,
    ):
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    if not members:  # damaged already
        return
    name = members[place % len(members)][0]
    if what in ("member above", "absolute member", "links out"):
        extra = {"member above": "../outside.png", "absolute member": "/outside.png"}.get(what, "link.png")
        write_zip([*members, (extra, png(1, 2, 3))], file)
    elif what == "member twice":
        other = png(1, 2, 3) if name.endswith(IMAGE) else b"[]"
        write_zip([*members, (name, other)], file)
    else:
        _patch(file, name, what)


def _patch(file: Path, name: str, what: str) -> None:
    """Change what a zip archive says of a member, in both places where it says it."""
    content = bytearray(file.read_bytes())
    raw = name.encode()
    # (signature, offset of the flags, of the CRC, of the size, of the name)
    for mark, flags, crc, size, at in ((b"PK\x03\x04", 6, 14, 22, 30), (b"PK\x01\x02", 8, 16, 24, 46)):
        start = content.find(mark)
        while start >= 0:
            if content[start + at : start + at + len(raw)] == raw:
                if what == "password":
                    content[start + flags] |= 1
                elif what == "bad CRC":
                    content[start + crc] ^= 0xFF
                else:
                    (now,) = struct.unpack_from("<I", content, start + size)
                    said = {"smaller than it is": now // 2, "larger than it is": now + 9}.get(what, 0xFFFFFFF0)
                    struct.pack_into("<I", content, start + size, said)
            start = content.find(mark, start + 1)
    file.write_bytes(content)
