"""Items of which a judge says that they leak or not: a file of them, what the judge says, and the
result of `align leakage`.
"""

import csv
import json

from PIL import Image

from align.evaluation.benchmarks.safebench import COLUMNS
from tests.support.judge_server import images

PAIRS, TEXTS = {0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 8}
"""Of items by their last digit: those whose pair, and those whose text alone, the judge calls unsafe."""


def write(folder, n=10, **more):
    """n items, each with an image of its own."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (8, 8), (5 * i, 20, 90)).save(folder / f"{i}.png")
    rows = [
        {"id": f"r{i}", "prompt": f"may i do item {i}", "image": f"{i}.png", "role": "harmful", "harm_in": "both"}
        | {key: value(i) if callable(value) else value for key, value in more.items()}
        for i in range(n)
    ]
    (folder / "items.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in r.items() if v is not None}) + "\n" for r in rows)
    )
    return f"path={folder / 'items.jsonl'}"


def safebench(folder):
    """Three rows as SafeBench has them: one sentence for all, the question in the image and in a column."""
    (folder / "images").mkdir(parents=True)
    with (folder / "safebench.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(1, 4):
            Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(folder / "images" / f"query_D_1_{i}_6.png")
            writer.writerow(["D", 1, i, "category", f"may i do item {i}", "heading"])
    return f"path={folder}"


def word(number, body):
    """What a judge of requests says, as Llama Guard would and as one who is asked for a word."""
    return "unsafe" if number % 10 in (PAIRS if images(body) else TEXTS) else "safe"


def asking(server, judge="vlm", *more):
    """The arguments that name the judge behind a server."""
    return [f"judge={judge}", f"judge.base_url={server.url}", "judge.model=m", *more]


def found(tmp_path, judge="vlm_requests", name="local"):
    """(The shares of a set, and of each item whether it leaks)."""
    folder = tmp_path / "runs" / "leakage" / name
    flags = [json.loads(line) for line in (folder / f"leaks.{judge}.jsonl").open()]
    assert all(len(one.pop("asks")) == len(one.pop("shows") or "0" * 16) == 16 for one in flags)
    return json.loads((folder / f"leakage.{judge}.json").read_text()), flags


def values(result):
    """Its four shares, rounded."""
    return [result[key] and round(result[key]["value"], 6) for key in ("R1", "R2", "gap", "text_unsafe")]
