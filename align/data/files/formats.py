"""The format of a file: by its name, by the name of a link's target, or by its first bytes.

In a snapshot of the Hub's cache, names are links to files without an ending: `imgs.tar` -> `blobs/3f2a...`.
"""

from __future__ import annotations

from pathlib import Path

ARCHIVES = (".zip", ".tar")
"""No compressed tar: reading one member would need reading all members before it."""
TABLES = (".jsonl", ".json", ".csv", ".parquet")
KNOWN = (*TABLES, *ARCHIVES)
BEGINNINGS = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip", b"PK\x05\x06": ".zip"}
TAR, TAR_AT = b"ustar", 257


def ending_of(file: Path) -> str:
    """One of KNOWN; otherwise the ending of the name, which may be empty."""
    if file.suffix in KNOWN:
        return file.suffix
    try:
        target = file.resolve().suffix
        if target in KNOWN:
            return target
        with file.open("rb") as opened:
            begins = opened.read(TAR_AT + len(TAR))
    except (OSError, RuntimeError):  # absent, a folder, cyclic links: opening it raises the error
        return file.suffix
    if begins[TAR_AT:] == TAR:
        return ".tar"
    return BEGINNINGS.get(begins[:4], file.suffix)
