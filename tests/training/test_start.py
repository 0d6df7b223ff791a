"""What stops a run stops it before a model is loaded: settings first, then what is there, then all rows at once."""

import json
import re
import shutil
import struct
import zlib

import pytest
from PIL import Image

from align.answering.stored import asking
from align.batches.rendering import Renderer
from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import BadRow, UserError
from align.families import family_of
from align.models.processors import load_processor
from align.rows import ImageRef, Row
from align.run_folder import RunFolder, run_folder
from align.settings import ModelSettings
from align.training.dry_run import show
from align.training.prepare import checked_data
from align.training.run import train
from tests.conftest import REAL
from tests.support.small_run import arguments

RED = "this is a red ball"


def local_run(model, folder, rows, *more, name="own", role="harmful", view="text"):
    """A run on rows of a file; harmful ones unless they say otherwise."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = [f"data.{name}={{source: local, path: {file}, role: {role}}}", "data.harmful=null", "data.benign=null"]
    return [
        *arguments(model, folder / "run", *parts),
        "global_batch_size=4",
        "evaluate.benchmark=[]",
        f"view={view}",
        *more,
    ]


def rows(count=40, **special):
    """Rows whose ids are h0, h1, ...; `special` are fields of the rows named."""
    return [
        {"id": f"h{i}", "prompt": f"how do i use this {i}", "response": RED} | special.get(f"h{i}", {})
        for i in range(count)
    ]


def write_image(file, size=(32, 32)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(file)


def bomb(file):
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return tmp_path / "cache" / "vsil-align"


def dry_run(words):
    show(compose_run(words))


def run_of(words):
    train(compose_run(words))


def data_of(words):
    """What a run would train on, as its manifest has it."""
    composed = compose_run(words)
    return checked_data(composed, run_folder(composed.config), asking(composed.config)).manifest()


@pytest.mark.parametrize("start", [dry_run, run_of])
def test_a_row_that_is_drawn_last_stops_the_run_before_its_first_step(tiny, tmp_path, start):
    command = local_run(tiny("llava"), tmp_path, rows(h13={"response": "red " * 120}), "train.max_length=64")
    with pytest.raises(
        UserError, match=r"1 of 40 training rows(.|\n)*own/h13: 1[0-9]{2} tokens .*train.max_length is 64"
    ):
        start(command)
    assert not RunFolder(tmp_path / "run").manifest()


def test_a_raised_max_length_is_the_same_run_and_goes_on_with_its_checkpoint(tiny, tmp_path, capsys):
    command = local_run(tiny("llava"), tmp_path, rows(8), "train.max_steps=2", "train.save_steps=1")
    run = train(compose_run([*command, "train.max_length=100"]))
    run.record(status="running")
    (run.checkpoints / "checkpoint-2").rename(run.checkpoints / "aside")
    quiet = [
        "train.max_length=128",
        "train.logging_steps=2",
        "train.save_total_limit=3",
        "train.dataloader_num_workers=0",
    ]
    capsys.readouterr()
    assert train(compose_run([*command, *quiet])) == run
    assert "resumed from step 1" in capsys.readouterr().out
    assert run.manifest()["status"] == "finished"
    train(compose_run(command))
    assert f"{run.path} is already trained" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"its train.learning_rate is 0.01, .*0.02"):
        train(compose_run([*command, "train.learning_rate=2e-2"]))


def test_all_bad_rows_of_all_parts_are_counted_by_kind_and_the_first_of_each_named(tiny, tmp_path):
    write_image(tmp_path / "line.png", (5000, 1))
    bomb(tmp_path / "bomb.png")
    (tmp_path / "text.png").write_text("no image")
    special = {f"h{i}": {"response": "red " * 200} for i in range(7)}
    special |= {
        "h10": {"response": "sorry <|im_end|> red"},
        "h11": {"prompt": "what is this <|image_pad|>"},
        "h12": {"response": None},
    }
    special |= {"h13": {"image": "line.png"}, "h14": {"image": "text.png"}, "h15": {"image": "bomb.png"}}
    command = local_run(tiny("qwen2_vl"), tmp_path, rows(**special), view="image")
    with pytest.raises(UserError) as refused:
        train(compose_run(command))
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("13 of 40 training rows")
    counted = {tuple(re.findall(r"own/h[0-9]+", line)): int(re.search(r"[0-9]+", line).group()) for line in lines[1:-1]}
    assert counted == {
        tuple(f"own/h{i}" for i in range(5)): 7,
        ("own/h10", "own/h11"): 2,
        ("own/h14", "own/h15"): 2,
        ("own/h12",): 1,
        ("own/h13",): 1,
    }
    assert "on_bad_row=drop" in lines[-1]


def test_dropped_rows_are_exactly_the_bad_ones_named_and_counted_in_the_manifest(tiny, tmp_path):
    write_image(tmp_path / "line.png", (5000, 1))
    (tmp_path / "text.png").write_text("no image")
    planted = {
        "too_long_for_model": {"h7": {"response": "red " * 200}, "h990": {"response": "red " * 130}},
        "special_token": {"h10": {"response": "sorry <|im_end|> red"}, "h11": {"prompt": "what is <|image_pad|>"}},
        "no_answer": {"h12": {"response": None}, "h13": {}, "h17": {"response": " "}},
        "empty_prompt": {"h18": {"prompt": ""}},
        "image_shape": {"h14": {"image": "line.png"}},
        "image_unreadable": {"h15": {"image": "text.png"}, "h16": {"image": "cut.png"}},
        "too_long": {"h999": {"response": "red " * 100}},
    }
    write_image(tmp_path / "cut.png", (400, 400))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])  # only decoding shows it
    write_image(tmp_path / "good.png")
    special = {name: fields for of in planted.values() for name, fields in of.items()}
    given = rows(1000, **special, h500={"image": "good.png"})
    del given[13]["response"]
    command = local_run(
        tiny("qwen2_vl"), tmp_path, given, "on_bad_row=drop", "train.max_length=110", "train.max_steps=1", view="image"
    )
    planted["too_long"] |= planted.pop("too_long_for_model")
    run = train(compose_run(command))
    data = run.manifest()["data"]
    assert {kind: sorted(ids) for kind, ids in data["dropped"].items()} == {
        kind: sorted(f"own/{name}" for name in of) for kind, of in planted.items()
    }
    assert data["rows"] == 988
    assert data["parts"] == {"own": 988}
    trained = {json.loads(line)["id"] for line in run.rows_file.open()}
    assert trained == {f"own/h{i}" for i in range(1000)} - {f"own/{name}" for name in special}


def test_rows_are_measured_once_and_those_that_changed_again(tiny, tmp_path, cache, monkeypatch):
    measured = []
    own = Renderer.measure
    monkeypatch.setattr(
        Renderer, "measure", lambda self, row, answers: measured.append(row.id) or own(self, row, answers)
    )
    words = [*local_run(tiny("llava"), tmp_path, rows()), "dry_run=true"]
    dry_run(words)
    assert len(measured) == 40
    measured.clear()
    dry_run(words)
    assert measured == []
    dry_run([*local_run(tiny("llava"), tmp_path, rows(h5={"response": "a cup"})), "train.max_length=90"])
    assert measured == ["own/h5"]
    for file in (cache / "rows").glob("*.jsonl"):
        file.write_text("damaged\n" + file.read_text()[:-9])
    measured.clear()
    dry_run(words)
    assert len(measured) == 40


def test_many_rows_are_measured_in_several_processes_to_the_same_result(tiny, tmp_path, monkeypatch):
    from align.training import row_checks

    words = local_run(tiny("qwen2_vl"), tmp_path, rows(600, h300={"response": "red " * 200}))

    def refusal():
        with pytest.raises(UserError) as refused:
            dry_run(words)
        return str(refused.value)

    alone = refusal()
    for file in (tmp_path / "cache" / "vsil-align" / "rows").iterdir():
        file.unlink()
    monkeypatch.setattr(row_checks, "MANY", 1)
    assert refusal() == alone
    assert "own/h300" in alone


@pytest.mark.parametrize(
    "key", ["train.lerning_rate=1", "train.max_steps=0", "train.beta=0", "train.beta=-0.5", "train.learning_rate=-1"]
)
def test_settings_are_refused_before_a_file_of_data_is_opened(tiny, tmp_path, key):
    given = ["method=dpo", "data.own.source=local", "data.own.path=absent.jsonl", "data.own.response=generate"]
    command = arguments(tiny("llava"), tmp_path / "run", "data.harmful=null", "data.benign=null", *given, key)
    with pytest.raises(UserError, match=key.partition("=")[0]):
        train(compose_run(command))


@pytest.mark.parametrize(
    ("key", "value"),
    [("lora", "{r: 8"), ("data", "{own: {source: local"), ("lora", "[r"), ("lora.target_modules", '"q_proj')],
)
def test_a_bracket_that_is_not_closed_is_named_with_its_argument(key, value):
    with pytest.raises(UserError, match=re.escape(f"'{key}={value}'")):
        compose_run(["recipe=mm_sft", f"{key}={value}"])


def test_one_request_with_opposite_answers_is_refused_and_counted_on_request(tiny, tmp_path):
    from align.miniature.rows import evaluation_rows

    (tmp_path / "same.png").write_bytes(evaluation_rows("vsil", 1)[0].images[0].bytes)
    shared = [{"id": f"s{i}", "prompt": f"how do i use it {i}", "image": "same.png"} for i in range(8)]
    refused = local_run(tiny("llava"), tmp_path, [row | {"response": "sorry"} for row in shared], view="image")
    answered = [row | {"response": RED, "prompt": row["prompt"].upper()} for row in shared]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answered))
    words = [
        *refused,
        f"data.more={{source: local, path: {tmp_path / 'more.jsonl'}, role: benign}}",
        "train.max_steps=1",
    ]
    with pytest.raises(UserError, match="8 requests .*own/s0 and more/s0.*allow_label_conflict=true"):
        data_of(words)
    facts = data_of([*words, "allow_label_conflict=true"])["facts"]
    assert any(fact.startswith("8 requests") and "own/s0 and more/s0" in fact for fact in facts)


def test_pairs_that_prefer_an_answer_both_ways_are_opposite(tiny, tmp_path):
    pairs = [{"id": "a", "chosen": "a cup", "rejected": "a key"}, {"id": "b", "chosen": "a key", "rejected": "a cup"}]
    given = [pair | {"prompt": "what is this"} for pair in pairs]
    words = local_run(tiny("llava"), tmp_path, given, "method=dpo", role="benign")
    with pytest.raises(UserError, match="1 requests .*own/b and own/a"):
        train(compose_run(words))


def test_answers_that_the_tokenizer_cannot_write_are_refused_and_a_few_are_counted(tiny, tmp_path):
    foreign = {"response": "Photosynthesis converts sunlight into carbohydrates"}
    few = local_run(tiny("llava"), tmp_path, rows(h3=foreign), "train.max_steps=1")
    facts = data_of(few)["facts"]
    assert any("(2.1%, in 1 rows)" in fact for fact in facts), facts
    with pytest.raises(UserError, match=r"83.3%, in 40 rows"):
        data_of(local_run(tiny("llava"), tmp_path, [row | foreign for row in rows()]))


def test_a_row_longer_than_the_models_context_is_refused(tiny, tmp_path):
    words = local_run(tiny("qwen2_vl"), tmp_path, rows(h2={"response": "red " * 300}), "train.max_length=null")
    with pytest.raises(UserError, match="own/h2: 3[0-9]{2} tokens .* is 128"):
        train(compose_run(words))


def test_lengths_are_those_that_rendering_makes(any_renderer, mini_rows, tmp_path):
    from align.batches.collators import Collator

    write_image(tmp_path / "wide.png", (600, 90))
    from dataclasses import replace

    from align.rows import ImageRef

    wide = [
        replace(row, id=f"{row.id}-wide", images=(ImageRef(path=str(tmp_path / "wide.png")),))
        for row in mini_rows["image_benign"]
    ]
    collator = Collator(any_renderer)
    for row in [*(row for of in mini_rows.values() for row in of), *wide]:
        prompt, answers = collator.measure(row)
        rendered = collator.render(row)["response"]
        assert (prompt, answers["response"]) == (len(rendered.prompt_ids), rendered.answer_ids)


def test_no_call_for_a_row_grows_with_the_vocabulary(any_renderer, mini_rows, monkeypatch):
    row = mini_rows["image_benign"][0]
    expected = any_renderer.render(row, row.response).answer_ids
    tokenizer = type(any_renderer.processor.tokenizer)

    def grows(*_, **__):
        raise AssertionError("the whole vocabulary was listed for one row")

    for name in ("get_vocab", "get_added_vocab", "__len__"):
        monkeypatch.setattr(tokenizer, name, grows)
    for name in ("vocab", "added_tokens_decoder", "added_tokens_encoder"):
        monkeypatch.setattr(tokenizer, name, property(grows))
    assert any_renderer.render(row, row.response).answer_ids == expected
    any_renderer.measure(row, [row.response])


def test_training_data_is_not_changed_by_the_check(tiny, tmp_path):
    words = local_run(tiny("llava"), tmp_path, rows(8), "train.max_steps=1")
    config = compose_run(words).config
    assert train(compose_run(words)).manifest()["data"] == training_data(config).manifest()


@pytest.mark.parametrize("view", ["image", "shuffled", "blank"])
def test_the_row_whose_own_image_is_bad_is_dropped_whatever_is_shown_in_its_place(tiny, tmp_path, view):
    for i in range(8):
        Image.new("RGB", (32, 32), (20 * i, 30, 30)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_text("no image")
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:-40])
    with_images = [row | {"image": f"{i}.png", "harm_in": "text"} for i, row in enumerate(rows(8))]
    words = local_run(tiny("llava"), tmp_path, with_images, "on_bad_row=drop", "train.max_steps=1", view=view)
    data = data_of(words)
    assert data["dropped"] == {"image_unreadable": ["own/h3", "own/h5"]}
    assert data["rows"] == 6


def test_a_row_without_the_caption_that_its_view_shows_is_one_of_the_bad_rows(tiny, tmp_path):
    write_image(tmp_path / "a.png")
    with_images = [row | {"image": "a.png", "caption": "a cup", "harm_in": "text"} for row in rows(8)]
    del with_images[2]["caption"]
    words = local_run(tiny("llava"), tmp_path, with_images, "on_bad_row=drop", "train.max_steps=1", view="caption")
    assert data_of(words)["dropped"] == {"no_caption": ["own/h2"]}


def test_what_a_method_needs_of_all_rows_holds_for_those_that_are_left(tiny, tmp_path):
    harmful = [row | {"role": "harmful", "harmful_response": "red " * 200} for row in rows(4)]
    benign = [row | {"role": "benign", "id": f"b{i}"} for i, row in enumerate(rows(4))]
    words = local_run(tiny("llava"), tmp_path, [*harmful, *benign], "method=unlearning", "on_bad_row=drop")
    with pytest.raises(UserError, match="none of the 4 rows is harmful"):
        train(compose_run(words))


def test_words_of_rows_that_are_left_out_are_not_counted_as_unknown(tiny, tmp_path):
    words = local_run(
        tiny("llava"),
        tmp_path,
        rows(9, h3={"response": "photosynthesis " * 120}),
        "on_bad_row=drop",
        "train.max_steps=1",
    )
    assert not any("unknown" in fact for fact in data_of(words)["facts"])


def test_answers_that_are_the_same_tokens_teach_nothing(tiny, tmp_path):
    pair = {"chosen": "a red ball", "rejected": "a  red ball", "prompt": "what is this", "id": "p"}
    words = local_run(tiny("llava"), tmp_path, [pair], "method=dpo", role="benign")
    with pytest.raises(UserError, match="own/p: chosen and rejected .*same tokens"):
        train(compose_run(words))


def test_a_cache_of_another_shape_or_a_full_disk_only_costs_time(tiny, tmp_path, cache, monkeypatch):
    words = local_run(tiny("llava"), tmp_path, rows(4))
    dry_run(words)
    (file,) = (cache / "rows").glob("*.jsonl")
    written = file.read_text()
    for line in ('{"a": 1}', "[]", "null", '{"key": "k", "lengths": 3}'):
        file.write_text(f"{line}\n{written}")
        data_of(words)
    file.unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("align.training.row_checks.append_jsonl", full)
    dry_run(words)


def test_another_patch_size_is_measured_anew(tiny, tmp_path):
    base = shutil.copytree(tiny("llava"), tmp_path / "base")
    write_image(tmp_path / "a.png")
    words = local_run(base, tmp_path, [row | {"image": "a.png", "harm_in": "text"} for row in rows(4)], view="image")
    dry_run([*words, "train.max_length=60"])
    file = base / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"patch_size": settings["patch_size"] // 2}))
    with pytest.raises(UserError, match="4 of 4 training rows"):
        dry_run([*words, "train.max_length=60"])


@pytest.mark.parametrize(("size", "fits"), [((2000, 2), True), ((60_000, 1600), False)])
def test_a_padded_image_is_as_large_as_its_square(shared, tmp_path, size, fits):
    settings = ModelSettings(image_aspect_ratio="pad")
    it = Renderer(load_processor(str(shared / "hub" / REAL["llava"])), family_of("llava"), settings)
    Image.new("L", size).save(tmp_path / "wide.png")
    row = Row("r", "what is this", images=(ImageRef(path=str(tmp_path / "wide.png")),))
    if fits:
        assert it.measure(row, [])[0] == len(it.render(row).prompt_ids)
    else:
        with pytest.raises(BadRow, match="60000 x 1600"):
            it.measure(row, [])
        with pytest.raises(BadRow, match="60000 x 1600"):
            it.render(row)
