"""Whole constructions with real painters: diffusers pipelines loaded here, and an images endpoint on the loopback."""

import json

import pytest
from PIL import Image

from align.cli import main
from tests.support.construction import CATEGORIES, funnel, lines, result
from tests.support.images_server import images_server
from tests.support.role_server import role_server


def arguments(server, folder, *painters):
    fixed = [CATEGORIES, "elements=1", "queries=2", "image_distance=null", "certify=false", "rounds=2"]
    return ["construct", *fixed, *server.settings(), f"output_dir={folder}", *painters]


def painted(folder):
    """{column: sizes of the images of the result}"""
    rows = lines(folder / "twins.jsonl")
    assert rows
    return {key: [Image.open(folder / row[key]).size for row in rows] for key in ("image", "benign_image")}


@pytest.mark.slow
@pytest.mark.long
def test_pipelines_paint_and_edit_and_a_repeated_command_paints_nothing(pipelines, tmp_path):
    settings = [
        f"painter.path={pipelines['text']}",
        "painter.steps=2",
        "painter.batch_size=2",
        f"twin_editor.path={pipelines['edit']}",
        "twin_editor.steps=2",
    ]
    with role_server() as server:
        assert main(arguments(server, tmp_path, *settings)) == 0
        before = result(tmp_path)
        server.asked.clear()
        assert main(arguments(server, tmp_path, *settings)) == 0
        assert not server.asked
    assert result(tmp_path) == before
    assert set(map(len, painted(tmp_path).values())) == {len(lines(tmp_path / "twins.jsonl"))}
    steps = funnel(tmp_path)
    assert steps["paint"]["roles"]["painter"]["calls"] == steps["paint"]["counts"]["images"]
    (origin,) = {row["origin"] for row in lines(tmp_path / "images.jsonl") if "twin" not in row["origin"]}
    assert origin.startswith("painted by")


def test_an_images_endpoint_paints_and_edits(tmp_path):
    with role_server() as roles, images_server() as images:
        settings = [
            f"{name}.{key}" for name in ("painter", "twin_editor") for key in (f"base_url={images.url}", "model=m")
        ]
        assert main(arguments(roles, tmp_path, *settings)) == 0
    assert painted(tmp_path)
    facts = json.loads((tmp_path / "construction.json").read_text())
    assert facts["painters"]["painter"]["model"] == "m"
    assert images.url not in (tmp_path / "construction.json").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_a_painter_without_memory_stops_its_step_and_the_same_command_finishes_it(
    pipelines, tmp_path, monkeypatch, capsys
):
    import torch
    from diffusers import UNet2DConditionModel

    settings = [f"painter.path={pipelines['text']}", "painter.steps=2", "steps=elements,queries,paint"]
    forward = UNet2DConditionModel.forward

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with role_server() as server:
        monkeypatch.setattr(UNet2DConditionModel, "forward", full)
        assert main(arguments(server, tmp_path, *settings)) == 2
        assert "out_of_memory" in capsys.readouterr().err
        assert not (tmp_path / "benchmark.jsonl").exists()
        writers = server.asked["writer"]
        monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
        assert main(arguments(server, tmp_path, *settings)) == 0
        assert server.asked["writer"] == writers
    assert funnel(tmp_path)["paint"]["statuses"]["failed"] == 0
