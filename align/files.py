"""Files that survive a kill: written to a temporary file and renamed, or appended line by line and
repaired when reopened.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically: a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # unlike tempfile, this follows the umask
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sayable(text: str) -> str:
    """Escape lone surrogates, which cannot be written to a file, as `\\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: Path, values: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def json_by_lines(values: Mapping[str, Any]) -> str:
    """A JSON object with one line per list entry; full indentation would take seconds for long lists."""

    def written(value: Any) -> str:
        if not isinstance(value, list) or not value:
            return json.dumps(value)
        return "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {written(value)}" for key, value in values.items()) + "\n}\n"


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises UserError that names it."""
    try:
        return json.loads(path.read_bytes())
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read this file; ask its owner to allow it (chmod a+r)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error


def folders(path: Path) -> list[str]:
    """The sorted names of the folders in a folder; empty if it does not exist."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def open_jsonl(path: Path) -> tuple[list[dict[str, Any]], Any]:
    """The complete records of an appended jsonl file, and the file opened for appending.

    An incomplete last line, left by a kill, is removed; any other broken line is an error, since a
    kill cannot cause it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return list(read_jsonl(path)), path.open("a", encoding="utf-8")


def read_jsonl(path: Path, growing: bool = False) -> Iterator[dict[str, Any]]:
    """Records of a jsonl file; with `growing`, only complete lines, as another process may be appending.

    Raises UserError that names the file, and the number of a damaged line.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if growing and not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not valid JSON: {error}") from error


def append_jsonl(file: Any, record: dict[str, Any]) -> None:
    """Append one record and flush it to the operating system."""
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def keep_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Rewrite an appended jsonl file so that it has these records in this order."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def cache_folder(name: str) -> Path:
    """The user's cache folder for one kind of file; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsil-align" / name


def share(folder: Path) -> None:
    """Give files in a folder the permissions that the umask gave the folder: safetensors writes owner-only files."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Create a folder atomically: write to the yielded draft folder, which is renamed at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        draft = Path(name, "draft")
        draft.mkdir()
        yield draft
        share(draft)
        with contextlib.suppress(OSError):  # another process finished the same folder first
            draft.rename(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: could not be written; check its permissions and the free disk space")


def refuse_other(folder: Path, what: str, there: dict[str, Any], wanted: dict[str, Any], more: str = "") -> None:
    """Raise UserError that names the first fact in which a folder's content differs from `wanted`;
    `there` is empty if new.
    """
    for key, value in wanted.items():
        if there and there.get(key) != value:
            raise UserError(
                f"{folder} contains another {what}: its {key} is {json.dumps(there.get(key))}, expected "
                f"{json.dumps(value)}{more}; give another output_dir=, or remove this folder"
            )
