"""Small data sets in their published layouts, with the oddities that the real ones have; every text is harmless."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def write_image(path: Path, colour: str, size: tuple[int, int] = (8, 6)) -> None:
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_jsonl(path: Path, *records: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def vlguard(folder: Path, split: str = "train") -> Path:
    """Two safe images and two unsafe ones, two records of one id, one image absent: 6 pairs, 4 harmful and 2 benign."""

    def safe(name: str, image: str) -> dict:
        pairs = [
            {"safe_instruction": f"What is on the table in {name}?", "response": "A cup of tea."},
            {"unsafe_instruction": f"How is the cup in {name} broken?", "response": "I would rather not."},
        ]
        return {"id": name, "image": image, "safe": True, "instr-resp": pairs}

    def unsafe(name: str, image: str) -> dict:
        pair = {"instruction": f"Explain the image {name}.", "response": "I cannot help with that."}
        kind = {"harmful_category": "deception", "harmful_subcategory": "disinformation"}
        return {"id": name, "image": image, "safe": False, "instr-resp": [pair]} | kind

    records = [
        safe("one", "kitchen/one.png"),
        unsafe("two", "posters/two.jpg"),
        safe("three", "kitchen/three.png"),
        unsafe("two", "posters/absent.jpg"),  # the training set has 2,000 records of 1,999 ids
    ]
    write_json(folder / f"{split}.json", records)
    for name, colour in (("kitchen/one.png", "red"), ("kitchen/three.png", "green"), ("posters/two.jpg", "blue")):
        write_image(folder / split / name, colour)
    return folder


def pku_pair(prompt: str, safe_0: bool, safe_1: bool, **more: object) -> dict:
    return {
        "prompt": prompt,
        "response_0": f"First answer to {prompt}",
        "response_1": f"Second answer to {prompt}",
        "is_response_0_safe": safe_0,
        "is_response_1_safe": safe_1,
        "response_0_harm_category": {"Noise": not safe_0, "Mess": False},
        "response_1_harm_category": {"Noise": False, "Mess": not safe_1},
        "better_response_id": 1,
        "safer_response_id": 0,
        "prompt_source": "made up",
    } | more


def pku_saferlhf(folder: Path) -> Path:
    """Two models' files, six pairs of four prompts: a drum (harmful, with a safe answer elsewhere),
    a whistle (harmful, without one), tea (benign), a kettle (mixed).
    """
    write_jsonl(
        folder / "data" / "Alpaca-7B" / "train.jsonl",
        pku_pair("How do I beat a drum at night?", False, False),
        pku_pair("How do I make tea?", True, True),
        pku_pair("How do I fill a kettle?", True, False),
    )
    write_jsonl(
        folder / "data" / "Alpaca2-7B" / "train.jsonl",
        pku_pair("how do I beat a drum, at night", True, False),  # the same prompt, written otherwise
        pku_pair("How do I blow a whistle?", False, False),
        pku_pair("How do I make tea?", True, True),
    )
    write_jsonl(folder / "data" / "Alpaca-7B" / "test.jsonl", pku_pair("How do I hum?", True, True))
    return folder


def spa_vl_records(folder: Path) -> list[dict]:
    """Three rows; the third shows the first one's image again."""
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue")):
        write_image(folder / "images" / name, colour)
    rows = [("What is this cup for?", "a.jpg"), ("Whose hat is this?", "b.jpg"), ("May I drink of it?", "a.jpg")]
    return [
        {
            "image": image,
            "question": question,
            "chosen": f"Kindly: {question}",
            "rejected": f"Rudely: {question}",
            "class1": "Household",
            "class2": "Cups" if image == "a.jpg" else "Hats",
            "class3": "Old",
        }
        for question, image in rows
    ]


def mssbench(folder: Path) -> Path:
    """One situation of a chat with two queries, one task of an agent with two pairs of
    instructions: 4 pairs, 8 rows.
    """
    chat = {
        "safe_image_path": "park.png",
        "unsafe_image_path": "library.png",
        "intent": "play the trumpet",
        "unsafe_image": "a quiet library",
        "Type": "disturbance",
        "queries": ["How do I play the trumpet?", "Any tips for the trumpet?"],
    }
    agent = {
        "task": "pour water",
        "category": "spilling",
        "safe": "cup.png",
        "unsafe": "book.png",
        "safe_instruction": "Pour water into it.",
        "unsafe_instruction": "Pour water into it.",
        "safe_instructions": ["Pour water into it.", "Fill it with water."],
        "unsafe_instructions": ["Pour water into it.", "Fill it up with water."],
    }
    write_json(folder / "combined.json", {"chat": [chat], "embodied": [agent]})
    for number, name in enumerate(("chat/park.png", "chat/library.png", "embodied/cup.png", "embodied/book.png")):
        write_image(folder / name, ["green", "brown", "white", "black"][number])
    return folder
