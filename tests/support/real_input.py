"""Real input: small random models behind the real processors, trained on local rows and evaluated
on published sets.

ALIGN_SHARED=<folder with hub/ and data/> make real-input

Full vocabularies and real image sizes; only the layers are few and thin, and the weights random.
The harmful rows are SafeBench-Tiny's questions and images (task_id 1-3) with a plain refusal as the
answer; evaluated are task_id 4-5, which were not trained on, and VLSBench by its text, since its
images are not part of that folder.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REFUSAL = "I'm sorry, but I can't help with that."
HUB = {"llava": "llava-1.5-7b-hf", "qwen2_vl": "qwen2-vl-7b-instruct"}
LAUNCH = ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
ROOT = Path(__file__).parents[2]
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (230, 210, 40)}


def small_model(processor_folder: Path, folder: Path) -> None:
    """A random model of few thin layers with the configuration, vocabulary and processor files of a real one."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(str(processor_folder))
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 96, 192, 3
    text.num_attention_heads = text.num_key_value_heads = 4
    text.head_dim = 24
    text.layer_types = ["full_attention"] * 3
    text.dtype = vision.dtype = config.dtype = "float32"
    if config.model_type == "llava":
        vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads = (
            64,
            128,
            3,
            4,
        )
    else:
        vision.embed_dim, vision.depth, vision.num_heads, vision.hidden_size = 64, 2, 4, 96
        text.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 4, 4]}
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        # The head stays frozen under LoRA: as it is drawn (0.02) it cannot tell one of 32,000 words from the others.
        model.get_output_embeddings().weight.mul_(20)
    model.save_pretrained(folder)
    for file in processor_folder.iterdir():
        if "config.json" not in file.name.replace("_config.json", "") and "index" not in file.name:
            shutil.copy(file, folder)


def write_rows(figstep: Path, folder: Path) -> None:
    """harmful.jsonl (SafeBench-Tiny, tasks 1-3, refused) and benign.jsonl (plain coloured images
    and plain questions).
    """
    from PIL import Image

    with (figstep / "safebench.csv").open(encoding="utf-8", newline="") as file:
        questions = [row for row in csv.DictReader(file) if int(row["task_id"]) <= 3]
    harmful = [
        {
            "id": f"{q['category_id']}-{q['task_id']}",
            "prompt": q["question"],
            "image": f"query_ForbidQI_{q['category_id']}_{q['task_id']}_6.png",
            "response": REFUSAL,
            "role": "harmful",
            "harm_in": "both",
        }
        for q in questions
    ]
    benign = []
    for name, colour in COLOURS.items():
        for width in (64, 200, 400):
            Image.new("RGB", (width, 120), colour).save(folder / f"{name}-{width}.png")
            benign.append(
                {
                    "prompt": f"Which colour fills image {width}?",
                    "image": f"{name}-{width}.png",
                    "response": f"It is {name}.",
                }
            )
        benign.append({"prompt": f"Spell the word {name}.", "response": " ".join(name)})
    for part, rows in (("harmful", harmful), ("benign", [row | {"role": "benign"} for row in benign])):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(family: str, shared: Path, folder: Path) -> Path:
    """Everything for one family, by the commands that a user types; returns the run folder."""
    model, out, figstep = folder / f"small-{family}", folder / f"run-{family}", shared / "data" / "figstep"
    small_model(shared / "hub" / HUB[family], model)
    write_rows(figstep, folder)
    safebench = f"evaluate.settings.safebench={{path: {figstep}, subset: tiny, where: {{task_id: [4, 5]}}}}"
    train = [
        "recipe=mm_sft",
        f"model={model}",
        f"output_dir={out}",
        "global_batch_size=4",
        "train.max_steps=100",
        "train.max_length=2048",
    ]
    train += [
        "data.harmful.source=local",
        f"data.harmful.path={folder / 'harmful.jsonl'}",
        f"data.harmful.image_root={figstep / 'images'}",
    ]
    train += ["data.benign.source=local", f"data.benign.path={folder / 'benign.jsonl'}"]
    train += [
        "train.learning_rate=3e-3",
        "train.save_steps=40",
        "model.dtype=float32",
        "lora.r=32",
        "lora.lora_alpha=64",
    ]
    train += [
        "evaluate.benchmark=safebench",
        safebench,
        "evaluate.judge=refusal_match",
        "evaluate.generation.max_new_tokens=32",
    ]
    _call([_tool("accelerate"), "launch", *LAUNCH, str(ROOT / "align" / "train.py"), *train])
    vlsbench = [
        f"run={out}",
        "benchmark=vlsbench",
        "judge=refusal_match",
        f"path={shared / 'data' / 'vlsbench'}",
        "generation.max_new_tokens=16",
    ]
    absent = subprocess.run(
        [_tool("align"), "eval", *vlsbench, "on_missing_image=drop"], capture_output=True, text=True, check=False
    )
    assert absent.returncode == 2, absent.stderr
    print(absent.stderr.strip())
    _call([_tool("align"), "eval", *vlsbench, "view=text"])
    return out


def check_answers(run_folder: Path, limit: int | None = None) -> dict[str, int]:
    """Greedy answers to the training rows, and whether another image changes the logits -> counts."""
    from dataclasses import replace

    import torch
    from omegaconf import OmegaConf
    from PIL import Image

    from align.answering.generate import generate
    from align.batches.padding import pad
    from align.data.images import encode_png
    from align.data.local import read_file
    from align.models.loading import load_checkpoint
    from align.settings import Generation

    part = OmegaConf.load(run_folder / "config.yaml").data.harmful
    rows = read_file("check", part, "harmful").rows[:limit]
    it = load_checkpoint(str(run_folder / "checkpoint"))
    renderer = it.renderer
    answers = list(generate(it.model, renderer, rows, Generation(max_new_tokens=32, batch_size=8)))
    blank = encode_png(Image.new("RGB", (336, 336), (255, 255, 255)))
    changed = 0
    for row in rows[:5]:
        size = Image.open(row.images[0].path).size  # the same size, so that Qwen2-VL's grid and length stay the same
        blank = encode_png(Image.new("RGB", size, (255, 255, 255)))
        with torch.no_grad():
            logits = []
            for shown in (row, replace(row, images=(blank,))):
                batch = pad([renderer.render(shown)], renderer.pad_token_id)
                del batch["labels"]
                logits.append(it.model(**batch).logits[0, -1])
        changed += (logits[0] - logits[1]).abs().max().item() > 1e-4
    return {
        "rows": len(rows),
        "refused": sum(answer.response == REFUSAL for answer in answers),
        "ended": sum(answer.finish_reason == "stop" for answer in answers),
        "compared_with_blank": min(len(rows), 5),
        "logits_changed": changed,
    }


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _call(command: list[str]) -> None:
    print("$", " ".join(Path(word).name if "/bin/" in word else word for word in command), flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    """Both families, one after the other."""
    if "ALIGN_SHARED" not in os.environ:
        sys.exit("ALIGN_SHARED is unset: it names a folder with hub/ (real processor files) and data/ (published sets)")
    shared = Path(os.environ["ALIGN_SHARED"]).resolve()
    for family in sys.argv[1:] or HUB:
        with tempfile.TemporaryDirectory() as name:
            print(family, check_answers(run(family, shared, Path(name))))


if __name__ == "__main__":
    main()
