"""Images of a model behind an endpoint: what is sent, what is taken for an image, and what is not."""

import io
import json
import logging

import pytest
from PIL import Image, ImageOps

pytest.importorskip("openai", reason="openai is not installed: pip install 'vsil-align[openai]'")

from align.answering import sending
from align.answering.budget import begin_command
from align.answering.conversation import Failure
from align.construction.painters.build import build_painter
from align.construction.painters.images_endpoint import ImagesEndpoint
from align.construction.painters.painter import Painted, Painting
from align.data.images import encode_png
from align.errors import UserError
from align.rows import ImageRef
from align.settings import PainterSettings
from tests.support.images_server import color_of, images_server

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sending, "FIRST_WAIT", 0.001)


def painter(server, **settings):
    return build_painter("painter", PainterSettings(base_url=server.url, model="m", **settings))


def job(name="a", prompt=None, seed=7, image=None):
    return Painting(name, prompt or f"prompt {name}", seed, image)


def paint(server, *jobs, **settings):
    """{id: result}"""
    found = list(painter(server, **settings).paint(jobs or [job()]))
    assert len({one.id for one in found}) == len(found) == len(jobs or [1])
    return {one.id: one for one in found}


def decoded(found):
    assert isinstance(found, Painted), found
    image = Image.open(io.BytesIO(found.png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


def half(size=(8, 6)):
    """An image to edit: red on the left, dark green on the right."""
    image = Image.new("RGB", size, (200, 10, 0))
    image.paste((0, 90, 20), (size[0] // 2, 0, *size))
    return image


def test_an_image_is_requested_with_its_prompt_and_seed_and_becomes_a_png():
    with images_server() as server:
        maker = painter(server, width=24, height=16, extra={"quality": "high"})
        assert maker.usage() == ""
        (found,) = maker.paint([job(seed=11)])
        (asked,) = server.asked
    assert isinstance(maker, ImagesEndpoint)
    assert (asked.path, asked.prompt) == ("/v1/images/generations", "prompt a")
    assert asked.body == {"prompt": "prompt a", "model": "m", "size": "24x16", "seed": 11, "quality": "high"}
    image = decoded(found)
    assert (image.size, image.getpixel((0, 0)), found.seconds > 0) == ((24, 16), color_of("prompt a", 11), True)
    assert maker.usage().startswith("1 ")


def test_extra_replaces_parameters_or_leaves_them_out():
    with images_server() as server:
        paint(server, width=24, height=16, extra={"seed": None, "size": "8x8"})
        begin_command()
        paint(server, width=24, height=16, extra={"size": None})
    without_seed, without_size = server.asked
    assert without_seed.body == {"prompt": "prompt a", "model": "m", "size": "8x8"}
    assert without_size.body == {"prompt": "prompt a", "model": "m", "seed": 7}


def test_an_image_to_edit_is_sent_upright_as_a_png_of_its_pixels(tmp_path):
    turned = half().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    with images_server() as server:
        found = paint(server, job(image=ImageRef(path=str(tmp_path / "turned.png"))), width=24, height=16)
    (asked,) = server.asked
    assert asked.path == "/v1/images/edits"
    assert asked.body == {"prompt": "prompt a", "model": "m", "size": "24x16", "seed": "7"}
    assert (asked.image.size, asked.image.tobytes()) == (half().size, half().tobytes())
    assert decoded(found["a"]).tobytes() == ImageOps.invert(half()).tobytes()


@pytest.mark.parametrize("form", ["prefixed", "data", "url", "other port", "jpeg"])
def test_an_image_may_come_in_the_reply_or_from_an_address_at_the_same_host(form, monkeypatch):
    monkeypatch.setenv("PAINTER_KEY", KEY)
    with images_server(faults={"*": [form]}) as server:
        found = paint(server, api_key_env="PAINTER_KEY")
    image = decoded(found["a"])
    difference = max(abs(a - b) for a, b in zip(image.getpixel((3, 3)), color_of("prompt a", 7), strict=True))
    assert (image.size, difference <= (8 if form == "jpeg" else 0)) == ((16, 12), True)
    sent = {"url": [f"Bearer {KEY}"], "other port": [""]}.get(form, [])  # the key is for the endpoint alone
    assert [authorization for _, _, authorization in server.fetched] == sent


@pytest.mark.parametrize("form", ["other host", "file"])
def test_an_address_at_another_place_is_not_followed(form):
    with images_server(faults={"*": [form]}) as server:
        failure = paint(server)["a"]
    assert (failure.reason, failure.final, server.fetched, len(server.asked)) == ("transport", False, [], 1)
    assert "painter.extra.response_format=b64_json" in failure.help


def test_a_redirect_is_not_followed():
    with images_server(faults={"*": ["redirect"]}) as server:
        failure = paint(server, retries=0)["a"]
    assert failure.reason == "transport"
    assert [path.split("/")[1] for _, path, _ in server.fetched] == ["moved"]


def test_a_download_that_failed_is_repeated_but_not_the_image_that_is_paid_for():
    with images_server(faults={"*": ["gone once"]}) as server:
        found = paint(server)["a"]
    assert decoded(found).getpixel((0, 0)) == color_of("prompt a", 7)
    assert (len(server.asked), len(server.fetched)) == (1, 2)


@pytest.mark.parametrize("faults", [[500], [429, 503], ["reset"], ["hang"]])
def test_temporary_errors_pass(faults):
    with images_server(faults={"*": list(faults)}) as server:
        found = paint(server, timeout=0.5 if "hang" in faults else 20)
    assert isinstance(found["a"], Painted)
    assert len(server.asked) == len(faults) + 1


def test_waits_double(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(sending, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(sending.asyncio, "sleep", sleep)
    with images_server(faults={"*": ["reset"] * 3}) as server:
        paint(server, retries=3)
    for wait, expected in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert 0.7 * expected <= wait <= 1.3 * expected


@pytest.mark.parametrize(
    ("fault", "reason", "final", "tries"),
    [
        ("always 500", "transport", False, 3),
        ("always hang", "timeout", False, 3),
        ("garbage", "transport", False, 1),
        ("not base64", "transport", False, 1),
        ("no data", "transport", False, 1),
        ("html", "transport", False, 1),
        ("black", "declined", False, 1),
        ("policy", "declined", True, 1),
        ("moderation", "declined", True, 1),
        (400, "declined", False, 1),
        (401, "transport", False, 1),
        (404, "transport", False, 1),
    ],
)
def test_what_is_no_image_is_a_failure_and_others_are_painted(fault, reason, final, tries):
    with images_server(faults={"prompt bad": [fault]}) as server:
        found = paint(server, job("bad"), job("good"), retries=2, timeout=0.4)
    failure = found["bad"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.final, failure.asked) == (reason, final, True)
    assert failure.detail
    assert isinstance(found["good"], Painted)
    assert sum(asked.prompt == "prompt bad" for asked in server.asked) == tries


def test_a_server_without_edits_still_makes_images_and_says_what_to_change():
    with images_server(edits=False) as server:
        found = paint(server, job("edit", image=encode_png(half())), job("new"), retries=2)
    assert isinstance(found["new"], Painted)
    assert found["edit"].reason == "transport"
    assert "/images/edits" in found["edit"].help
    assert "painter.base_url=" in found["edit"].help
    assert [asked.path for asked in server.asked].count("/v1/images/edits") == 1


def test_the_help_names_the_setting_that_removes_a_parameter():
    with images_server(faults={"*": ["no seed"]}) as server:
        assert "painter.extra.seed=null" in paint(server)["a"].help


def test_an_absent_image_is_no_request():
    with images_server() as server:
        found = paint(server, job("a", image=ImageRef(path="/nowhere/a.png")), job("b"))
    assert found["a"].reason == "missing_image"
    assert isinstance(found["b"], Painted)
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", ["always 500", "always garbage", "always no seed"])
def test_a_server_that_fails_for_all_is_given_up(fault):
    jobs = [job(str(i)) for i in range(40)]
    with images_server(faults={"*": [fault]}) as server:
        found = paint(server, *jobs, retries=0, concurrency=4)
    assert sending.GIVE_UP <= len(server.asked) < sending.GIVE_UP + 4
    unasked = [one for one in found.values() if not one.asked]
    assert len(unasked) == 40 - len(server.asked)
    assert all(isinstance(one, Failure) for one in found.values())


def test_the_limit_of_requests_counts_retries_and_keeps_what_was_made():
    made = []
    with images_server(faults={"prompt a": [500]}) as server:
        maker = painter(server, max_calls=3, concurrency=1)
        with pytest.raises(UserError, match=r"painter\.max_calls=3"):
            made.extend(maker.paint([job("a"), job("b"), job("c")]))
        assert len(server.asked) == 3
    assert [one.id for one in made if isinstance(one, Painted)] == ["a", "b"]
    assert maker.usage().startswith("3 ")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_at_a_time_as_asked_for(concurrency):
    jobs = [job(str(i)) for i in range(3 * concurrency)]
    with images_server(together=concurrency) as server:
        found = paint(server, *jobs, concurrency=concurrency, retries=0)
    assert all(isinstance(one, Painted) for one in found.values())
    assert server.most == concurrency


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog, capsys):
    monkeypatch.setenv("PAINTER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with images_server(faults={"prompt a": ["always 500"], "prompt b": [400]}) as server:
        maker = painter(server, api_key_env="PAINTER_KEY", retries=1)
        found = list(maker.paint([job("a"), job("b"), job("c")]))
    assert {asked.authorization for asked in server.asked} == {f"Bearer {KEY}"}
    shown = repr(found) + repr(maker.identity) + repr(capsys.readouterr()) + caplog.text
    assert sum(isinstance(one, Failure) and "refused" in one.detail for one in found) == 2  # the server repeats the key
    assert KEY not in shown


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_cost": 1.0}, "painter.max_cost=1.0"),
        ({"price_in": 2.0}, "painter.price_in=2.0"),
        ({"steps": 30}, "painter.steps=30"),
        ({"guidance": 4.0}, "painter.guidance=4.0"),
        ({"batch_size": 4}, "painter.batch_size=4"),
        ({"call": {"strength": 0.5}}, "painter.call="),
        ({"width": 512}, "painter.height="),
        ({"width": 0, "height": 512}, "painter.width=0"),
        ({"extra": {"n": 4}}, "painter.extra.n"),
        ({"extra": {"api_key": "x"}}, "painter.extra"),
        ({"model": None}, "painter.model="),
        ({"timeout": 0.0}, "painter.timeout=0.0"),
        ({"api_key_env": "NO_SUCH_KEY"}, "painter.api_key_env=NO_SUCH_KEY"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_sent(settings, named):
    with pytest.raises(UserError) as refused:
        build_painter("painter", PainterSettings(**({"base_url": "http://127.0.0.1:9/v1", "model": "m"} | settings)))
    assert named in str(refused.value)


def test_the_identity_changes_with_what_the_image_depends_on_and_not_with_the_address():
    def identity(**settings):
        given = {"base_url": "http://127.0.0.1:9/v1", "model": "m"} | settings
        return json.dumps(build_painter("painter", PainterSettings(**given)).identity, sort_keys=True)

    same = identity(base_url="http://127.0.0.1:10/v1", concurrency=2, retries=1)
    others = [
        identity(),
        identity(model="n"),
        identity(width=8, height=8),
        identity(width=8, height=9),
        identity(extra={"quality": "low"}),
    ]
    assert same == others[0]
    assert len(set(others)) == 5
