"""Drop a run's stored settings of judges that the command line makes useless."""

from __future__ import annotations

from copy import copy

from align.config.compose import compose_eval
from align.config.endpoints import other_place
from align.config.merge import Composed
from align.evaluation.judges.settings import DEFAULTS, idle
from align.evaluation.named import benchmark_of
from align.rows import split_view
from align.settings import Judging


def forget_stored(composed: Composed) -> None:
    """Drop stored settings of judges that have no effect with the command line's settings.

    Typed settings stay, so that useless ones are rejected. Judges that replace the run's judges
    start from default settings; a typed path replaces a stored endpoint, and the reverse.
    """
    from align.evaluation.judges.build import build

    config, judging = composed.config, composed.config.judge
    own_of_sets = [
        judge
        for benchmark in config.benchmark
        for name in [split_view(benchmark)[0]]
        for judge in benchmark_of(name, config.settings.get(name)).judges
    ]
    before = compose_eval([f"run={config.run}"]).config.judge.name or own_of_sets
    now = [name for name in dict.fromkeys(judging.name or own_of_sets) if name != "none"]
    typed = {key for key in DEFAULTS if _typed(composed, f"judge.{key}")}
    if not set(before) & set(now):
        _reset(judging, set(DEFAULTS) - typed)
    _reset(judging, set(other_place({key: getattr(judging, key) for key in typed})) - typed)
    for name, own in list(judging.each.items()):
        of_one = {key for key in own or {} if _typed(composed, f"judge.each.{name}.{key}")}
        given = {key: own[key] for key in of_one} or {key: getattr(judging, key) for key in typed}
        for key in {*typed, *other_place(given)} & set(own or {}) - of_one:
            del own[key]
        if name not in now and not of_one:
            del judging.each[name]
    for name, key in list(idle(judging, {name: build(name, judging) for name in now})):
        if name is None and key not in typed:
            _reset(judging, {key})
        elif name is not None and not _typed(composed, f"judge.each.{name}.{key}"):
            del judging.each[name][key]


def _typed(composed: Composed, key: str) -> bool:
    return any(
        origin.kind == "argument" and (known == key or known.startswith(f"{key}."))
        for known, origin in composed.origins.items()
    )


def _reset(judging: Judging, keys: set[str]) -> None:
    for key in keys:
        setattr(judging, key, copy(DEFAULTS[key]))
