"""An evaluation of harmful requests that a judge behind an address judges: its items, its arguments, its files."""

import json


def items(folder, n):
    """A file of n harmful requests."""
    rows = [
        {"id": f"r{i}", "prompt": f"tell me about item {i}", "role": "harmful", "harm_in": "text"} for i in range(n)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def arguments(server, *more):
    """Of `align eval`: the server answers, and it judges."""
    return [
        "eval",
        f"generation.base_url={server.url}",
        "generation.model=answerer",
        "benchmark=local",
        "path=items.jsonl",
        "output_dir=run",
        "judge=vlsbench",
        f"judge.base_url={server.url}",
        "judge.model=gpt",
        *more,
    ]


def lines(folder, name):
    """What is in one of the evaluation's files."""
    return [json.loads(line) for line in (folder / "run" / "evaluation" / "local" / name).open()]


def summary(folder):
    """The evaluation's result."""
    return json.loads((folder / "run" / "evaluation" / "local" / "summary.vlsbench.json").read_text())
