"""The format of a file: by its name, by the name of a link's target, or by its first bytes.

In a snapshot of the Hub's cache, names are links to files without an ending: `imgs.tar` -> `blobs/3f2a...`.
"""

from __future__ import annotations

from pathlib import Path

ARCHIVES = (".zip", ".tar")
"""No compressed tar: reading one member would need reading all members before it."""
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
"""Archives that are not read in place."""
TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
COMPRESSED = ".gz"
TABLES = (*TEXTS, *(f"{text}{COMPRESSED}" for text in TEXTS), ".parquet")
KNOWN = (*TABLES, *ARCHIVES)
BEGINNINGS = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip", b"PK\x05\x06": ".zip"}
TAR, TAR_AT = b"ustar", 257


def ending_of_name(name: str) -> str:
    """The ending of a file's name in lower case: one of KNOWN or PACKED, otherwise the last one, which may be empty."""
    lower = name.lower()
    long = next((ending for ending in (*KNOWN, *PACKED) if "." in ending[1:] and lower.endswith(ending)), None)
    return long or Path(lower).suffix


def ending_of(file: Path) -> str:
    """One of KNOWN; otherwise the ending of the name, which may be empty."""
    named = ending_of_name(file.name)
    if named in KNOWN:
        return named
    try:
        target = ending_of_name(file.resolve().name)
        if target in KNOWN:
            return target
        with file.open("rb") as opened:
            begins = opened.read(TAR_AT + len(TAR))
    except (OSError, RuntimeError):  # absent, a folder, cyclic links: opening it raises the error
        return named
    if begins[TAR_AT:] == TAR:
        return ".tar"
    return BEGINNINGS.get(begins[:4], named)


def unpacking(name: str) -> str:
    """What to do with an archive that is not read in place, for error messages."""
    command = "tar -xf" if ".t" in ending_of_name(name) else "7z x"
    return f"it is a compressed archive, which is not read in place; unpack it: {command} {name}"
