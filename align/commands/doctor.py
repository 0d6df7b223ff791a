"""`align doctor`: report what this machine can run and what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace

from align.config.compose import compose, compose_run
from align.config.merge import Composed
from align.doctor import chosen, comm, machine, packages
from align.doctor.check import BROKEN, OK, Check, as_json, can_run, show
from align.errors import UserError
from align.settings import DoctorConfig, RunConfig

FORMATS = ("text", "json")


def main(arguments: Sequence[str]) -> int:
    """Check and print; returns 0 if runs can start, 1 if not.

    Raises UserError for wrong arguments.
    """
    config, of_run = _split(arguments)
    world = comm.join(config.comm_timeout) if config.comm else None
    with contextlib.redirect_stdout(sys.stderr):  # libraries print to stdout on import, which would break JSON
        if world is None:
            alone = [comm.alone()] if config.comm else []
            heard = comm.Heard([*alone, *_checks(config, of_run)], speaks=True)
        else:
            heard = comm.hear(world)
            if can_run(heard.checks):
                heard.checks += _on_every_host(world, list(_checks(config, of_run)))
    status = _conclude(heard.checks, config, of_run) if heard.speaks else None
    if world is not None and (status := world.agree(status)) == 0:
        comm.leave()
    sys.stdout.flush()
    if heard.hangs:  # its thread would not let the process end
        os._exit(status or 1)
    return 1 if status is None else status


def _split(arguments: Sequence[str]) -> tuple[DoctorConfig, list[str]]:
    """-> (the doctor's own settings, arguments of the run to check; empty without recipe=)."""
    own = {field.name for field in fields(DoctorConfig)}
    keys = [argument.partition("=")[0] for argument in arguments]
    of_run = [a for a, key in zip(arguments, keys, strict=True) if key not in own or key == "output_dir"]
    for_us = [a for a, key in zip(arguments, keys, strict=True) if key in own]
    if "recipe" in keys:
        config: DoctorConfig = compose(DoctorConfig, for_us).config
    else:
        of_runs = {field.name for field in fields(RunConfig)} - own
        if foreign := next((key for key in keys if key.split(".")[0] in of_runs), None):
            raise UserError(
                f"{foreign}= is a setting of a run, but recipe= is missing. Add recipe=<name> to check that run."
            )
        config, of_run = compose(DoctorConfig, arguments).config, []
    if config.format not in FORMATS:
        raise UserError(f"format={config.format}: expected {' or '.join(FORMATS)}")
    if config.comm_timeout <= 0:
        raise UserError(f"comm_timeout={config.comm_timeout}: expected more than 0 seconds")
    return config, of_run


def _checks(config: DoctorConfig, of_run: Sequence[str]) -> Iterator[Check]:
    """All checks except the network's."""
    yield from packages.checks()
    gpus: list[machine.Device] = []
    try:
        gpus = machine.devices()
        yield from machine.device_checks(gpus)
    except (ImportError, OSError, RuntimeError) as error:
        yield Check("devices", BROKEN, f"torch cannot list devices: {error}", "repair torch or its driver")
    composed, wrong = _composed(of_run)
    if composed is None:
        yield from machine.disk_checks(config.output_dir, {})
        yield from machine.token_checks()
        yield from wrong
        return
    run = composed.config
    yield from machine.disk_checks(run.output_dir, chosen.space(run))
    yield from machine.token_checks(chosen.key_variables(run))
    yield from chosen.checks(composed, gpus)


def _composed(of_run: Sequence[str]) -> tuple[Composed | None, list[Check]]:
    """The run's configuration; if it cannot be composed, a check that says why."""
    if not of_run:
        return None, []
    try:
        return compose_run(of_run), []
    except UserError as error:
        return None, [Check("configuration", BROKEN, str(error), "correct it; `align <verb> --help all` lists keys")]


def _on_every_host(world: comm.World, checks: list[Check]) -> list[Check]:
    """Checks of this process plus faults that one process of each other host found.

    For example, a file may be missing on one host.
    """
    here = socket.gethostname()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    trouble = [asdict(check) for check in checks if check.status != OK] if first else []
    said = world.roll_call("checks", json.dumps([here, trouble]))
    for rank in range(world.size):
        host, others = json.loads(said[rank]) if rank in said else (f"rank {rank}", [_unfinished(world)])
        checks += [replace(Check(**other), name=f"{host}: {other['name']}") for other in others if host != here]
    return checks


def _unfinished(world: comm.World) -> dict[str, str]:
    return asdict(
        Check("checks", BROKEN, f"not finished within {world.seconds:g} s", "give a longer comm_timeout=<seconds>")
    )


def _conclude(checks: list[Check], config: DoctorConfig, of_run: Sequence[str]) -> int:
    if config.format == "json":
        print(json.dumps(as_json(checks), indent=2, ensure_ascii=False))
    else:
        show(checks, "This run can start here" if of_run else "Runs can start here")
    return 0 if can_run(checks) else 1
