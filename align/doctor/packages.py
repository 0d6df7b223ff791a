"""Checks of package versions, optional extras, and torchvision, which may fail on import."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Iterator

from align.doctor.check import BROKEN, MISSING, OK, WARNING, Check

PACKAGE = "vsil-align"
ENABLES = {
    "deepspeed": "ZeRO: accelerate_configs/zero2.yaml and zero3.yaml",
    "quant": "model.quantization=nf4 | int8 (QLoRA), 8-bit optimizers (train.optim=adamw_bnb_8bit)",
    "wandb": "train.report_to=wandb",
    "tensorboard": "train.report_to=tensorboard",
    "openai": "models at an endpoint (generation.base_url=)",
    "convert": "original LLaVA checkpoints whose tokenizer is tokenizer.model (align convert)",
    "smolvlm": "SmolVLM's processor (num2words)",
    "construct": "image models and near-duplicates of align construct (diffusers, imagehash)",
}
"""Uses of optional extras; `dev` and `browser` are for developers of this package."""
IMPORT_TIMEOUT = 300
"""Seconds: on a cluster's file system the first import of torch takes minutes."""


def checks() -> Iterator[Check]:
    """Check Python, required packages, optional extras and torchvision."""
    yield from _needed()
    yield from _extras()
    yield torchvision()


def version_of(package: str) -> str | None:
    """The installed version; None if the package is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _needed() -> Iterator[Check]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        yield Check(PACKAGE, WARNING, "not installed, so version ranges are unknown", "pip install -e .")
        return
    yield _in_range("python", platform.python_version(), SpecifierSet(str(metadata["Requires-Python"])))
    for stated in metadata.get_all("Requires-Dist") or []:
        needed = Requirement(stated)
        if needed.marker is None:
            yield _in_range(needed.name, version_of(needed.name), needed.specifier)


def _in_range(name: str, version: str | None, wanted: object) -> Check:
    from packaging.specifiers import SpecifierSet

    assert isinstance(wanted, SpecifierSet)
    if version is None:
        return Check(name, MISSING, f"not installed ({wanted})", f"pip install '{name}{wanted}'")
    if not wanted.contains(version, prereleases=True):
        return Check(name, WARNING, f"{version}, outside the range {wanted}", f"pip install '{name}{wanted}'")
    return Check(name, OK, f"{version} ({wanted})")


def _extras() -> Iterator[Check]:
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(line) for line in importlib.metadata.requires(PACKAGE) or []]
    except importlib.metadata.PackageNotFoundError:
        return
    for extra, good_for in ENABLES.items():
        for needed in stated:
            if needed.marker is None or not needed.marker.evaluate({"extra": extra}):
                continue
            check = _in_range(needed.name, version_of(needed.name), needed.specifier)
            check.name = f"extra {extra}"
            check.found = f"{needed.name} {check.found}"
            if check.status == OK:
                yield Check(check.name, OK, check.found, good_for)
            elif check.status == WARNING:
                yield check
            else:
                yield Check(check.name, OK, check.found, f"pip install '{PACKAGE}[{extra}]' enables {good_for}")


def torchvision() -> Check:
    """Check the import of torchvision.

    A build that does not match torch fails on import, and so does transformers' AutoProcessor.
    """
    name = "torchvision"
    if importlib.util.find_spec(name) is None:
        return Check(name, OK, "not installed: it is needed only for videos, which are not used here")
    # In its own process: a mismatched library may crash it.
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "import torchvision"],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT,
            check=False,
        )
        failed = (
            f"status {probe.returncode}: {(probe.stderr.strip() or '?').splitlines()[-1]}" if probe.returncode else ""
        )
    except subprocess.TimeoutExpired:
        failed = f"not imported within {IMPORT_TIMEOUT} s"
    pair = f"torchvision {version_of(name) or '?'} with torch {version_of('torch') or '?'}"
    if failed:
        return Check(
            name,
            BROKEN,
            f"{pair} cannot be imported ({failed}), so transformers' processors fail too",
            "pip uninstall torchvision, which is optional here; or install the build that matches this torch, from the "
            "same index",
        )
    return Check(name, OK, pair)
