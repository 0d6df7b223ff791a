"""Templates of self-contained pages: text is escaped, and only the page's own script may run."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any


def environment(folder: Path) -> Any:
    """The jinja2 environment of a folder of templates; every value is escaped, and an unknown name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_hash(script: str) -> str:
    """The hash that a content security policy compares: other scripts do not run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def for_script(values: Any) -> str:
    """JSON for a script element, escaped so that nothing in it ends the element."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
