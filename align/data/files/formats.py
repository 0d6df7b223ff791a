"""What format a file has: by its own name, by the name of what it links to, or by how it begins.

A snapshot of the hub's cache is links with names to files without any: `imgs.tar` -> `blobs/3f2a...`.
"""

from __future__ import annotations

from pathlib import Path

ARCHIVES = (".zip", ".tar")
"""Of a tar that is compressed no member could be read without those before it."""
TABLES = (".jsonl", ".json", ".csv", ".parquet")
KNOWN = (*TABLES, *ARCHIVES)
BEGINNINGS = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip", b"PK\x05\x06": ".zip"}
TAR, TAR_AT = b"ustar", 257


def ending_of(file: Path) -> str:
    """One of KNOWN; else the ending of its name, which may be empty."""
    if file.suffix in KNOWN:
        return file.suffix
    try:
        target = file.resolve().suffix
        if target in KNOWN:
            return target
        with file.open("rb") as opened:
            begins = opened.read(TAR_AT + len(TAR))
    except (OSError, RuntimeError):  # absent, a folder, links in a circle: whoever opens it says so
        return file.suffix
    if begins[TAR_AT:] == TAR:
        return ".tar"
    return BEGINNINGS.get(begins[:4], file.suffix)
