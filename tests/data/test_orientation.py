"""An image with an orientation tag is turned once, and everybody sees the same upright pixels:
model, judge, report, hash, sizes.
"""

import base64
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from align.answering.chat_server import _data_url
from align.commands.data import main
from align.data import images, pixels
from align.data.images import image_size, load_image, pixel_hash
from align.data.pixels import hashes_of
from align.data.views import show
from align.errors import UserError
from align.report.page.images import Images
from align.rows import ImageRef, Row
from tests.support.odd_images import saved

ORIENTATION = 0x0112
LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    **({"AVIF": {"quality": 100, "subsampling": "4:4:4"}} if features.check("avif") else {}),
}
LOSSY = {"JPEG": {"quality": 95}, "MPO": {"quality": 95}}
KINDS = LOSSLESS | LOSSY


def scene() -> Image.Image:
    """Wider than high, and alike under no turn."""
    image = Image.linear_gradient("L").resize((32, 16)).convert("RGB")
    image.paste((200, 30, 30), (0, 0, 12, 5))
    return image


def tagged(kind: str, orientation: int, image: Image.Image | None = None) -> bytes:
    """A file whose tag says how its pixels are turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    more = {"append_images": [Image.new("RGB", (32, 16))], "save_all": True} if kind == "MPO" else {}
    return saved(image or scene(), kind, exif=exif, **KINDS[kind], **more)


def by_pil(content: bytes) -> np.ndarray:
    """As `datasets` and `transformers` decode it."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def tag_behind_pixels(orientation: int) -> bytes:
    """A PNG with its eXIf chunk at the end, where ExifTool writes it."""
    with Image.open(io.BytesIO(tagged("PNG", orientation))) as opened:
        exif = opened.getexif().tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + exif
    plain = saved(scene(), "PNG")
    end = plain.rindex(b"IEND") - 4
    return plain[:end] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[end:]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_size_are_those_that_datasets_and_transformers_see(kind, orientation):
    content = tagged(kind, orientation)
    expected = by_pil(content)
    decoded = load_image(ImageRef(bytes=content), "row x")
    assert np.array_equal(np.asarray(decoded), expected)
    assert image_size(ImageRef(bytes=content), "row x") == decoded.size == expected.shape[1::-1]
    assert decoded.size == ((16, 32) if orientation in (5, 6, 7, 8) else (32, 16))


TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def noise(mode: str) -> tuple[Image.Image, np.ndarray]:
    """(an image of a mode, the RGB pixels that it stores)"""
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 256 + 7), values[..., [0, 0, 0]]
    if mode == "1":
        image = Image.fromarray(values[..., 0] > 127)
    elif mode == "P":
        image = Image.fromarray(values[..., 0]).convert("RGB").quantize(16)
    else:
        bands = len(Image.new(mode, (1, 1)).getbands())
        image = Image.merge(mode, [Image.fromarray(np.ascontiguousarray(values[..., i])) for i in range(bands)])
    return image, np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"])
def test_a_tiff_file_of_any_mode_is_turned_as_its_tag_says(tmp_path, mode, compression):
    """Pillow maps a file of some modes into memory, and turns it wrongly there."""
    image, stored = noise(mode)
    file = tmp_path / "a.tif"
    for orientation, turned in TURNED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.save(file, "TIFF", exif=exif, **({"compression": compression} if compression else {}))
        for of in (ImageRef(path=str(file)), ImageRef(bytes=file.read_bytes())):
            decoded = load_image(of, "row x")
            assert np.array_equal(np.asarray(decoded), turned(stored)), orientation
            assert image_size(of, "row x") == decoded.size


@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_a_tag_behind_the_pixels_of_a_png_counts(orientation):
    content = tag_behind_pixels(orientation)
    assert np.array_equal(np.asarray(load_image(ImageRef(bytes=content), "row x")), by_pil(content))
    assert image_size(ImageRef(bytes=content), "row x") == by_pil(content).shape[1::-1]


def test_a_tag_in_xmp_alone_counts():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = saved(scene(), "JPEG", xmp=xmp)
    assert load_image(ImageRef(bytes=content), "row x").size == (16, 32)
    assert image_size(ImageRef(bytes=content), "row x") == (16, 32)


def test_sixteen_bits_of_grey_are_turned_too():
    values = Image.fromarray(np.linspace(0, 65535, 32 * 16).astype(np.uint16).reshape(16, 32))
    upright = load_image(ImageRef(bytes=tagged("PNG", 1, values)), "row x")
    turned = load_image(ImageRef(bytes=tagged("PNG", 6, values)), "row x")
    assert np.array_equal(np.asarray(turned), np.asarray(upright.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("kind", [kind for kind in LOSSLESS if kind != "AVIF"])
def test_a_turned_copy_has_the_hash_of_the_upright_one(kind):
    """So the overlap between training and evaluation finds it."""
    upright = saved(scene(), "PNG")
    turned = tagged(kind, 6, scene().transpose(Image.Transpose.ROTATE_90))
    assert pixel_hash(ImageRef(bytes=turned), "a") == pixel_hash(ImageRef(bytes=upright), "b")
    assert pixel_hash(ImageRef(bytes=tagged(kind, 6)), "c") != pixel_hash(ImageRef(bytes=upright), "b")


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_gets_upright_pixels_without_a_tag_that_would_turn_them_again(kind):
    content = tagged(kind, 6)
    sent = base64.b64decode(_data_url(ImageRef(bytes=content), "x").partition(",")[2])
    with Image.open(io.BytesIO(sent)) as opened:
        assert opened.getexif().get(ORIENTATION) is None
        assert np.array_equal(np.asarray(opened), by_pil(content))
    assert np.array_equal(by_pil(sent), by_pil(content))


def test_what_is_loaded_carries_nothing_but_pixels():
    """transformers would turn a decoded image again whose tag it finds, and PNG keeps a colour that
    counts as transparent.
    """
    palette = scene().quantize(8)
    for content in (tagged("JPEG", 6), saved(palette, "PNG", transparency=0), saved(scene(), "JPEG", icc_profile=b"x")):
        assert load_image(ImageRef(bytes=content), "row x").info == {}


def test_the_report_shows_it_upright(tmp_path):
    (tmp_path / "a.jpg").write_bytes(tagged("JPEG", 6))
    image = {"path": str(tmp_path / "a.jpg"), "inside": None}
    image["pixels"] = pixel_hash(ImageRef(path=image["path"]), "row x")
    shown = Images(1 << 20)
    key, why = shown.add({"id": "x", "images": [image]}, "local")
    assert (key, why) == (image["pixels"], "")
    with Image.open(io.BytesIO(base64.b64decode(shown.found[key].partition(",")[2]))) as copy:
        assert (copy.size, copy.getexif().get(ORIENTATION)) == ((16, 32), None)


def test_a_blank_image_has_the_upright_size():
    row = Row("x", "p", (ImageRef(bytes=tagged("JPEG", 6)),))
    assert load_image(show(row, "blank", [row]).images[0], "row x").size == (16, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_size_is_read_from_the_header_alone(kind):
    """From a file that is cut in its pixels, of which nothing could be decoded."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8))
    content = tagged(kind, 6, noise)
    cut = ImageRef(bytes=content[: len(content) // 2])
    assert image_size(cut, "row x") == (64, 128)
    with pytest.raises(UserError, match="row x"):
        load_image(cut, "row x")


@pytest.mark.parametrize(
    "damage", [b"Exif\0\0", b"Exif\0\0XX*\0\0\0\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_whose_tags_are_damaged_is_shown_as_it_is_stored(damage):
    content = saved(scene(), "JPEG", exif=damage)
    assert load_image(ImageRef(bytes=content), "row x").size == image_size(ImageRef(bytes=content), "row x") == (32, 16)


def test_hashes_that_an_earlier_version_cached_are_not_reused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.jpg").write_bytes(tagged("JPEG", 6))
    row = Row("x", "p", (ImageRef(path=str(tmp_path / "a.jpg")),))
    (right,) = hashes_of([row]).values()
    (cached,) = Path(tmp_path, "cache").rglob("*.jsonl")
    *key, digest = json.loads(cached.read_text())
    assert digest == right
    assert f"pixels-{images.DECODING}" in cached.parts
    former = pixels._Kept(str(tmp_path)).path.name
    (tmp_path / "cache" / "vsil-align" / "pixels").mkdir()
    (tmp_path / "cache" / "vsil-align" / "pixels" / former).write_text(json.dumps([*key, "0" * 64]) + "\n")
    cached.unlink()
    assert list(hashes_of([row]).values()) == [right]


def test_images_of_data_are_opened_in_one_place():
    """Whoever opens a file with Pillow alone sees it as it is stored. The other files open a figure
    that was drawn here, and an image that was opened, turned and encoded before it was sent to vLLM.
    """
    root = Path(images.__file__).parents[1]
    opens = {str(file.relative_to(root)) for file in root.rglob("*.py") if "Image.open(" in file.read_text()}
    assert opens == {"data/images.py", "tools/publish/wandb_log.py", "answering/vllm/child.py"}


def test_align_data_finds_the_upright_copy_and_shows_upright_sizes(tmp_path, capsys):
    """The same photograph, turned by its tag in the training file and upright in the evaluation file."""
    (tmp_path / "turned.png").write_bytes(tagged("PNG", 6, scene().transpose(Image.Transpose.ROTATE_90)))
    (tmp_path / "upright.png").write_bytes(saved(scene(), "PNG"))
    for name, image in (("train", "turned.png"), ("test", "upright.png")):
        record = {"prompt": f"What is in {name}?", "image": image, "role": "benign"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    words = [f"path={tmp_path / 'train.jsonl'}", f"settings.local.path={tmp_path / 'test.jsonl'}", "sample=1"]
    assert main(["source=local", "benchmark=local", *words]) == 0
    out = capsys.readouterr().out
    assert "images in common with source local: 1" in out
    assert out.count("32 x 16") == 2
