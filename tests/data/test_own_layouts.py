"""Files of other layouts than ours, each read by one command, which `align data` proposes where it can."""

import base64
import gzip
import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.cli import main
from tests.support.odd_images import png

pytestmark = pytest.mark.usefixtures("cache")
BASE64 = [base64.b64encode(png(10, 10, i)).decode() for i in range(3)]


def written(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def alpaca_like(folder):
    """Instruction tuning without a column `input`: a list of records."""
    return written(
        folder, "tuning.json", json.dumps([{"instruction": f"Name {i} cups.", "output": "A cup."} for i in range(3)])
    )


def vqa_tsv(folder):
    """A benchmark of questions as VLMEvalKit keeps it: tsv, images in base64, no file beside it."""
    rows = [f"{i}\t{image}\tHow many cups, {i}?\t{i}\tcounting" for i, image in enumerate(BASE64)]
    return written(folder, "VQA.tsv", "\n".join(["index\timage\tquestion\tanswer\tcategory", *rows]))


def pope(folder):
    """POPE: JSON lines in .json, an answer in `label`."""
    for i in range(3):
        written(folder / "val2014", f"{i}.png", png(10, 10, i))
    questions = [{"question_id": i, "image": f"{i}.png", "text": f"Is it cup {i}?", "label": "yes"} for i in range(3)]
    return written(folder, "coco_pope.json", lines(*questions))


def compressed(folder):
    return written(
        folder,
        "qa.jsonl.gz",
        gzip.compress(lines(*({"query": f"Cup {i}?", "reply": "Yes."} for i in range(3))).encode()),
    )


def data_urls(folder):
    """Requests to a chat service, kept with their images."""
    rows = [{"user_prompt": f"Cup {i}?", "image_url": f"data:image/png;base64,{one}"} for i, one in enumerate(BASE64)]
    return written(folder, "requests.jsonl", lines(*rows))


def raw_bytes(folder):
    """Parquet that pandas wrote: images in a binary column."""
    rows = [{"Question": f"Cup {i}?", "Answer": "Yes.", "content": png(10, 10, i)} for i in range(3)]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def nested(folder):
    """One list of records in an object that says where it comes from."""
    rows = [{"problem": f"Cup {i}?", "solution": "Yes.", "img_path": f"{i}.png"} for i in range(3)]
    for i in range(3):
        written(folder, f"{i}.png", png(10, 10, i))
    return written(folder, "set.json", json.dumps({"version": "1.0", "split": "train", "data": rows}))


def several_roots(folder):
    """Images of several data sets, each in a folder of its own, as for LLaVA-Instruct-665k."""
    names = [f"{of}/{i}.png" for i, of in enumerate(("coco/train2017", "gqa/images", "vg/VG_100K"))]
    for i, name in enumerate(names):
        written((folder / f"disk{i}" / name).parent, f"{i}.png", png(10, 10, i))
    rows = [{"request": f"Cup {i}?", "completion": "Yes.", "file_name": name} for i, name in enumerate(names)]
    return written(folder, "mix.jsonl", lines(*rows))


def upper_case(folder):
    """A spreadsheet's export, with its byte order mark."""
    return written(
        folder,
        "SAFETY.CSV",
        "\ufeffGoal,Safe Response,Behavior Type\r\n" + "".join(f"Cup {i}?,Yes.,cups\r\n" for i in range(3)),
    )


def preferences(folder):
    """Preferences over lists of images, one record per line."""
    for i in range(3):
        written(folder, f"{i}.png", png(10, 10, i))
    pair = {"winner": "Yes.", "loser": "No.", "safety": "harmful"}
    rows = [{"question": f"Cup {i}?", "imgs": [f"{i}.png", "0.png"]} | pair for i in range(3)]
    return written(folder, "pairs.ndjson", lines(*rows))


LAYOUTS = {
    alpaca_like: ("prompt=instruction|response=output", 0, ""),
    vqa_tsv: ("prompt=question|response=answer|id=index", 3, ""),
    pope: ("prompt=text|response=label|id=question_id", 3, "image_root={folder}/val2014"),
    compressed: ("prompt=query|response=reply", 0, ""),
    data_urls: ("prompt=user_prompt|image=image_url", 3, ""),
    raw_bytes: ("prompt=Question|image=content|response=Answer", 3, ""),
    nested: ("prompt=problem|image=img_path|response=solution", 3, ""),
    several_roots: (
        "prompt=request|image=file_name|response=completion",
        3,
        "image_root={folder}/disk0,{folder}/disk1/gqa/images,{folder}/disk2",
    ),
    upper_case: ("prompt=Goal|response=Safe Response", 0, ""),
    preferences: ("role=safety|prompt=question|images=imgs|chosen=winner|rejected=loser", 3, ""),
}
"""{layout: (the columns that are proposed, after the field, rows with images, what else its user knows)}"""


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def layout(request, tmp_path):
    """(arguments of `align data`, the options that map the columns, rows with images)"""
    columns, with_image, more = LAYOUTS[request.param]
    file = request.param(tmp_path / "set")
    given = [f"path={file}", *more.format(folder=file.parent).split()]
    return ["source=local", *given], [f"columns.{one}" for one in columns.split("|")], with_image


def test_one_command_reads_it(layout, capsys):
    arguments, options, with_image = layout
    role = [] if any("columns.role" in one for one in options) else ["role=harmful"]
    assert main(["data", *arguments, *options, *role, "summary=true", "validate=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["roles"]["harmful"], found["with_image"]) == (3, 3, with_image)
    assert (found["missing_images"], found["unreadable_images"], found["facts"]) == (0, 0, [])


def test_its_columns_are_proposed_with_a_command_to_paste(layout, capsys):
    arguments, options, with_image = layout
    assert main(["data", *arguments]) == 1
    said = capsys.readouterr().out
    assert f"Proposed: {shlex.join(options)}\n" in said
    assert said.count(", row ") == 2  # the first rows, as they would be read
    assert "does not exist" not in said
    command = next(line for line in said.splitlines() if line.startswith("To read it so")).partition(": ")[2]
    align, *pasted = shlex.split(command)
    assert align == "align"
    assert main([*pasted, "summary=true"]) == 0
    assert json.loads(capsys.readouterr().out)["with_image"] == with_image


def test_nothing_is_proposed_for_a_file_with_our_columns(tmp_path, capsys):
    written(tmp_path, "rows.jsonl", lines({"prompt": "Cup?", "response": "Yes.", "type": "cups", "index": 1}))
    assert main(["data", "source=local", f"path={tmp_path / 'rows.jsonl'}", "role=benign"]) == 0
    assert "Proposed" not in capsys.readouterr().out


def test_what_is_left_out_of_a_file_that_can_be_read_is_proposed_too(tmp_path, capsys):
    written(tmp_path, "a.png", png())
    written(tmp_path, "rows.jsonl", lines({"prompt": "Cup?", "answer": "Yes.", "pic": "a.png"}))
    assert main(["data", "source=local", f"path={tmp_path / 'rows.jsonl'}", "role=benign"]) == 0
    assert "Proposed: columns.image=pic columns.response=answer" in capsys.readouterr().out


def test_columns_that_say_nothing_are_listed_and_the_option_is_named(tmp_path, capsys):
    written(tmp_path, "rows.jsonl", lines({"x": "Cup?", "y": "Yes.", "image": "a.png"}))
    assert main(["data", "source=local", f"path={tmp_path / 'rows.jsonl'}"]) == 1
    said = capsys.readouterr().out
    assert "columns: x, y, image" in said
    assert "a.png (does not exist; set image_root=<folder>)" in said
    assert "columns.prompt=<column>" in said


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"instruction": "Name a cup.", "input": "", "output": "A mug."}, "alpaca"),
        (
            {"id": "1", "conversations": [{"from": "human", "value": "Hot?"}, {"from": "gpt", "value": "Yes."}]},
            "conversations",
        ),
        (
            {"messages": [{"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "Yes."}]},
            "conversations",
        ),
    ],
)
def test_a_layout_that_another_source_reads_is_named(tmp_path, capsys, record, source):
    written(tmp_path, "rows.json", json.dumps([record]))
    assert main(["data", "source=local", f"path={tmp_path / 'rows.json'}"]) == 1
    assert f"align data source={source} path={tmp_path / 'rows.json'}" in capsys.readouterr().out
