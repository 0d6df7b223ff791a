"""The comparison with LLaMA-Factory and ms-swift, without them: what each is told, its rows, and
what is made of the results.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from perf.against_peers import BATCH, PEERS, SIDES, compared, plans, shape_of
from perf.peers import llama_factory, ms_swift
from perf.peers.environment import constraints, requirements
from perf.peers.shared import PROJECTIONS, ordered_rows
from perf.profiled import kind_of
from perf.shapes import SHAPES, write_rows

FAMILIES = ("qwen2_vl", "llava_1_5")
LLAMA_FACTORY_NAMES = {"qwen2_vl": "qwen2_vl", "llava_1_5": "llava"}
MS_SWIFT_NAMES = {"qwen2_vl": "qwen2_vl", "llava_1_5": "llava1_5_hf"}


def plan_for(method, family, rows=None, order=()):
    train = {"learning_rate": 1e-4, "max_steps": 2}
    told = {"method": method, "family": family, "model": "/model", "batch": 8, "rows_a_pass": 2, "train": train}
    return told | {"rows": str(rows), "order": list(order)}


def shown(row):
    """A row's images as the data set that was written shows them."""
    return [Path(image).name for image in row["images"]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_llama_factory_trains_the_same_adapter_batch_and_precision(method, family, tmp_path):
    told = llama_factory.configuration(plan_for(method, family), tmp_path)
    assert told["stage"] == method
    assert told["template"] == LLAMA_FACTORY_NAMES[family]
    assert (told["lora_rank"], told["lora_alpha"], told["lora_dropout"]) == (16, 32, 0.0)
    assert told["lora_target"].split(",") == list(PROJECTIONS)
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (2, 4)
    assert told["disable_shuffling"]
    assert told["disable_gradient_checkpointing"]
    assert not {"bf16", "fp16", "packing", "neat_packing"} & told.keys()
    assert ("pref_beta" in told) == (method == "dpo")
    # The published LLaVA template has no system prompt.
    assert told.get("default_system") == ("" if family == "llava_1_5" else None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_ms_swift_trains_the_same_adapter_batch_and_precision(method, family, tmp_path):
    told = ms_swift.configuration(plan_for(method, family), tmp_path)
    assert told["model_type"] == told["template"] == MS_SWIFT_NAMES[family]
    assert (told["lora_rank"], told["lora_alpha"], told["lora_dropout"]) == (16, 32, 0.0)
    assert all(name in told["target_regex"] for name in PROJECTIONS)
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (2, 4)
    assert told["torch_dtype"] == "float32"
    assert not any(told[key] for key in told if "shuffle" in key or "checkpointing" in key)
    assert ("rlhf_type" in told) == (method == "dpo")


def test_rows_are_written_for_both_peers_in_the_order_of_our_sampler(tmp_path):
    file = write_rows(tmp_path / "rows", shape_of("qwen2_vl_sft_mixed"), 8)
    plan = plan_for("sft", "qwen2_vl", file, order=[3, 1, 0, 2, 7, 6, 5, 4])
    rows = ordered_rows(plan)
    ours = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["3", "1", "0", "2", "7", "6", "5", "4"]

    llama_factory.write_rows(plan, rows, tmp_path)
    ms_swift.write_rows(plan, rows, tmp_path)
    first = json.loads((tmp_path / "rows.json").read_text())
    second = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert any(row["images"] for row in first)
    assert not all(row["images"] for row in first)
    for place, a, b in zip(plan["order"], first, second, strict=True):
        row = ours[place]
        prompt = ("<image>" if "image" in row else "") + row["prompt"]
        assert [turn["value"] for turn in a["conversations"]] == [prompt, row["response"]]
        assert [turn["content"] for turn in b["messages"]] == [prompt, row["response"]]
        assert shown(a) == shown(b) == ([row["image"]] if "image" in row else [])
        assert all(Path(image).is_file() for image in a["images"])


def test_pairs_are_written_for_both_peers_with_their_images(tmp_path):
    file = write_rows(tmp_path / "rows", shape_of("llava_1_5_dpo_images"), 2)
    plan = plan_for("dpo", "llava_1_5", file, order=[1, 0])
    rows = ordered_rows(plan)
    llama_factory.write_rows(plan, rows, tmp_path)
    ms_swift.write_rows(plan, rows, tmp_path)
    first = json.loads((tmp_path / "rows.json").read_text())[0]
    second = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    row = json.loads(file.read_text().splitlines()[1])
    # LLaVA's template has a newline behind an image; ms-swift's adds it itself.
    assert first["conversations"] == [{"from": "human", "value": f"<image>\n{row['prompt']}"}]
    assert second["messages"][0]["content"] == f"<image>{row['prompt']}"
    assert (first["chosen"]["value"], first["rejected"]["value"]) == (row["chosen"], row["rejected"])
    assert (second["messages"][1]["content"], second["rejected_response"]) == (row["chosen"], row["rejected"])
    described = json.loads((tmp_path / "dataset_info.json").read_text())["rows"]
    assert described["ranking"]
    assert {"chosen", "rejected"} <= described["columns"].keys()


def test_all_sides_get_the_same_rows_and_global_batch(tmp_path):
    told = plans("llava_1_5_sft_mixed", tmp_path, 2, dict.fromkeys(SIDES, 1) | {"ms-swift": 4})
    assert set(told) == set(SIDES)
    assert {plan["rows"] for plan in told.values()} == {str(tmp_path / "rows" / "rows.jsonl")}
    assert {plan["batch"] for plan in told.values()} == {BATCH}
    assert sorted(told["align"]["order"]) == list(range(2 * BATCH))
    assert told["ms-swift"]["rows_a_pass"] == 4
    assert told["align"]["settings"] == ["train.per_device_train_batch_size=1"]


@pytest.mark.parametrize("peer", PEERS)
def test_what_is_installed_has_tried_versions(peer):
    first, *more = requirements(peer)
    assert first.split("==")[0] in ("llamafactory", "ms-swift")
    assert "torchvision==0.28.0" in more
    pinned = [line for line in constraints(peer).read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pinned)


def training(cpu, mib=100, loss=2.0, trainable=7):
    """What a process of one side tells of three steps; the first one warms up."""
    return {
        "seconds": [9.0, *cpu],
        "cpu_seconds": [9.0, *cpu],
        "cpu_seconds_to_first_step": 20.0,
        "seconds_to_first_step": 30.0,
        "trainable": trainable,
        "losses": [loss, loss, loss],
        "peak_memory_mib": mib,
        "threads": 1,
        "settings": {},
    }


def results(**other):
    return {
        "align": [training([2.0, 4.0]), training([3.0, 3.0])],
        "ms-swift": [training([3.0, 3.0], mib=200), training([6.0, 6.0], mib=200)],
        "llama-factory": [training([6.0, 6.0]), training([6.0, 6.0])],
    } | other


def test_ratio_is_the_geometric_mean_of_the_rounds_without_first_steps():
    result = compared("qwen2_vl_sft_mixed", results())
    swift = result["over"]["ms-swift"]
    assert swift["ratio"] == pytest.approx(np.sqrt(1.0 * 2.0), abs=0.005)
    assert swift["low"] < swift["ratio"] < swift["high"]
    assert swift["memory_ratio"] == 0.5
    assert result["over"]["llama-factory"] == {"ratio": 2.0, "low": 2.0, "high": 2.0, "memory_ratio": 1.0}
    assert result["sides"]["align"]["samples_per_cpu_second"] == round(BATCH / 3, 3)
    assert result["rounds"] == 2
    json.dumps(result, allow_nan=False)


def test_of_one_round_there_is_no_interval():
    result = compared("qwen2_vl_sft_mixed", {which: of[:1] for which, of in results().items()})
    assert (result["over"]["ms-swift"]["low"], result["over"]["ms-swift"]["high"]) == (None, None)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(("of", "named"), [({"loss": 2.1}, "loss"), ({"trainable": 8}, "trainable")])
def test_no_ratio_where_something_else_was_trained(of, named):
    with pytest.raises(SystemExit, match=f"ms-swift: .*{named}"):
        compared("qwen2_vl_sft_mixed", results(**{"ms-swift": [training([3.0, 3.0], **of)] * 2}))


def test_losses_may_differ_by_a_token_of_the_template():
    compared("qwen2_vl_sft_mixed", results(**{"ms-swift": [training([3.0, 3.0], loss=2.0002)] * 2}))


@pytest.mark.parametrize(
    ("operation", "shapes", "kind"),
    [
        ("aten::mm", [[8, 256], [256, 152064]], "the head's products"),
        ("aten::exp", [[8, 2048]], "the head's softmax"),
        ("aten::mm", [[8, 256], [256, 704]], "the layers' products"),
        ("aten::_scaled_dot_product_attention", [[1, 4, 8, 64]], "attention"),
        ("aten::add", [[8, 256], []], "the rest"),
    ],
)
def test_operations_are_told_apart_by_the_sizes_of_the_head(operation, shapes, kind):
    assert kind_of(operation, shapes, (152064, 2048)) == kind


def test_shapes_of_the_comparison_have_published_processors():
    assert {SHAPES[name].model for name in SHAPES if SHAPES[name].model != "llava"} == set(FAMILIES)


def test_nobody_warms_up_so_that_later_losses_can_be_compared(tmp_path):
    told = plans("qwen2_vl_sft_mixed", tmp_path, 2, dict.fromkeys(SIDES, 1))["align"]
    assert told["train"]["warmup_steps"] == 0
    for peer in (llama_factory, ms_swift):
        assert not {"warmup_steps", "warmup_ratio"} & peer.configuration(told, tmp_path).keys()
