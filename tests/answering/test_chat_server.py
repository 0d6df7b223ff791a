"""A chat model behind an address: what is sent, when it is sent again, how much at a time and for how much money."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from PIL import Image

from align.answering import sending as address
from align.answering.budget import Budget, Spent
from align.answering.chat_server import Server
from align.answering.conversation import Failure, Reply, Request, Turn
from align.data.images import encode_png, load_image
from align.errors import UserError
from align.rows import ImageRef
from align.settings import EndpointSettings
from tests.support.chat_server import completion
from tests.support.judge_server import judge_server
from tests.support.loopback import QuietHandler, serving


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(address, "FIRST_WAIT", 0.01)
    monkeypatch.chdir(tmp_path)


@dataclass
class Told:
    """A server that does as it is told, once for each request: (status, headers, what to change of the completion)."""

    tries: list[tuple[int, dict, dict]]
    bodies: list[dict] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    most: int = 0
    """Requests that were there at a time."""


@contextmanager
def told(*tries, together=1):
    """`together`: so many requests wait for each other before they are answered."""
    state, gathered = Told(list(tries)), threading.Barrier(together)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.times.append(time.monotonic())
                status, headers, changed = state.tries.pop(0) if state.tries else (200, {}, {})
                state.now += 1
                state.most = max(state.most, state.now)
            gathered.wait(10)
            with state.lock:
                state.now -= 1
            content = completion("yes", usage=(7, 2)) | changed if status == 200 else {"error": {"message": "not now"}}
            self.respond(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})

    with serving(Handler) as url:
        state.url = f"{url}/v1"
        yield state


def ask(server, *requests, **settings):
    model = Server(EndpointSettings(base_url=server.url, model="m", **settings), "judge")
    return list(model.replies(requests or [request()])), model


def request(text="a question", name="r", images=(), room=10, schema=None):
    return Request(name, (Turn("user", text, images),), room, schema)


def test_what_is_sent_is_ours_and_extra_adds_to_it_replaces_it_or_leaves_it_out():
    with told() as server:
        ask(server)
        ask(
            server,
            extra={"max_tokens": None, "max_completion_tokens": 64, "temperature": None, "reasoning_effort": "low"},
        )
        ask(server, request(schema={"type": "object"}), extra={"temperature": 0.5, "seed": 3})
        ask(server, request(schema={"type": "object"}), extra={"response_format": None})
    messages = {"model": "m", "messages": [{"role": "user", "content": "a question"}]}
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": {"type": "object"}}}
    assert server.bodies == [
        messages | {"temperature": 0, "max_tokens": 10},
        messages | {"max_completion_tokens": 64, "reasoning_effort": "low"},
        messages | {"temperature": 0.5, "seed": 3, "max_tokens": 10, "response_format": form},
        messages | {"temperature": 0, "max_tokens": 10},
    ]


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "1"}, 1.0),
        ({"retry-after-ms": "300"}, 0.3),
        ({"Retry-After": "0.4"}, 0.4),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": "86400"}, 0.6),
        ({"Retry-After": "inf"}, 0.6),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_in_seconds_when_to_come_again(monkeypatch, status, headers, least):
    """A date is not read, a day is not waited: then, and where nothing is said, the waits are ours."""
    monkeypatch.setattr(address, "LONGEST_WAIT", 0.6 if least == 0.6 else 60.0)
    with told((status, headers, {})) as server:
        ((reply,), _) = ask(server)
    assert reply.text == "yes"
    first, second = server.times
    assert least <= second - first < least + 5  # a machine may be busy


def test_waits_double_where_a_server_says_nothing(monkeypatch):
    monkeypatch.setattr(address, "FIRST_WAIT", 0.1)
    with told(*[(500, {}, {})] * 3) as server:
        ask(server)
    waits = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    for wait, expected in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert 0.75 * expected <= wait < 1.25 * expected + 0.5


@pytest.mark.parametrize("retries", [0, 2])
def test_so_many_tries_and_no_more(retries):
    with told(*[(500, {}, {})] * 9) as server:
        ((failure,), model) = ask(server, retries=retries)
    assert isinstance(failure, Failure)
    assert failure.reason == "transport"
    assert len(server.bodies) == model.budget.calls == retries + 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "declined"),
        (401, "transport"),
        (403, "transport"),
        (404, "transport"),
        (413, "declined"),
        (422, "declined"),
    ],
)
def test_what_would_be_the_same_again_is_not_tried_again(status, reason):
    with told((status, {}, {})) as server:
        ((failure,), _) = ask(server)
    assert (failure.reason, len(server.bodies)) == (reason, 1)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": 7, "total_tokens": 7}, (7, None)),
        ({"prompt_tokens": "7", "completion_tokens": None}, (None, None)),
    ],
)
def test_a_server_that_does_not_count_still_answers(usage, counted):
    with told((200, {}, {"usage": usage})) as server:
        ((reply,), model) = ask(server)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.prompt_tokens, reply.new_tokens) == ("yes", *counted)
    assert model.usage() == f"1 calls, {counted[0] or 0} + 0 tokens"


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_never_more_at_a_time_than_asked_for_and_as_many_where_there_are(concurrency):
    """No request is answered before so many are there: fewer would wait in vain."""
    requests = [request(name=f"{i}") for i in range(3 * concurrency)]
    with told(together=concurrency) as server:
        found, _ = ask(server, *requests, concurrency=concurrency, retries=0)
    assert [reply.text for reply in found] == ["yes"] * len(requests)
    assert {reply.id for reply in found} == {one.id for one in requests}
    assert server.most == concurrency


def test_requests_are_taken_as_there_is_room():
    """A set of a million images is not read before the first is asked about."""
    taken = []

    def source():
        for i in range(100):
            taken.append(i)
            yield request(f"item {i}", f"{i}")

    with judge_server() as server:
        replies = Server(EndpointSettings(base_url=server.url, model="m", concurrency=2), "judge").replies(source())
        next(replies)
        assert len(taken) <= 4
        replies.close()
        assert sum(server.judged.values()) <= 4


def test_images_are_sent_in_order_as_png_of_the_very_pixels(tmp_path):
    palette = Image.linear_gradient("L").resize((9, 5)).convert("P")
    clear = Image.new("RGBA", (6, 7), (200, 10, 30, 128))
    palette.save(tmp_path / "palette.gif")
    clear.save(tmp_path / "clear.webp", lossless=True)
    images = (ImageRef(path="palette.gif"), ImageRef(path="clear.webp"), encode_png(Image.new("L", (3, 4), 77)))
    with told() as server:
        ask(server, request("what is it", images=images))
    (message,) = server.bodies[0]["messages"]
    *parts, text = message["content"]
    assert text == {"type": "text", "text": "what is it"}
    for sent, image in zip(parts, images, strict=True):
        kind, _, content = sent["image_url"]["url"].partition(",")
        decoded, expected = Image.open(io.BytesIO(base64.b64decode(content))), load_image(image, "")
        assert (sent["type"], kind, decoded.format) == ("image_url", "data:image/png;base64", "PNG")
        assert (decoded.mode, decoded.size, decoded.tobytes()) == ("RGB", expected.size, expected.tobytes())


def test_an_absent_image_is_no_call():
    with told() as server:
        found, model = ask(server, request(images=(ImageRef(path="gone.png"),)), request(name="other"))
    assert {one.id: getattr(one, "reason", "answered") for one in found} == {"r": "missing_image", "other": "answered"}
    assert model.budget.calls == len(server.bodies) == 1


def test_a_budget_worked_out_by_hand():
    budget = Budget(EndpointSettings(price_in=2.0, price_out=10.0, max_cost=0.01, max_calls=5), "judge")
    # 300 letters are 100 tokens, an image 1500: 1600 * 2 + 100 * 10 = 4200 millionths.
    one = request("x" * 300, images=(ImageRef(path="a.png"),), room=100)
    assert budget.reserve(one) == pytest.approx(0.0042)
    assert budget.reserve(one) == pytest.approx(0.0042)
    with pytest.raises(
        Spent, match=r"judge.max_cost=0.01: 0.0000 US dollars are spent, and the next request may cost 0.0042"
    ):
        budget.reserve(one)  # 0.0126 would be too much, though nothing is spent yet
    budget.settle(0.0042, one, (1000, 10))  # 1000 * 2 + 10 * 10 = 2100 millionths: 0.0021 + 0.0042 + 0.0042 = 0.0105
    with pytest.raises(Spent, match=r"0.0021 US dollars are spent"):
        budget.reserve(one)
    budget.settle(0.0042, one, (0, 0))  # it failed, and cost nothing
    assert budget.reserve(one) == pytest.approx(0.0042)
    budget.settle(0.0042, one, (None, None))  # nobody knows what it cost
    said = "3 calls, 1,000 + 10 tokens, 0.01 USD (of this, at most 0.00 for replies without a token count)"
    assert (budget.calls, budget.said()) == (3, said)
    assert budget.spent() == pytest.approx(0.0021 + 0.0042)
    assert budget.cost(1_000_000, 500_000) == pytest.approx(7.0)
    for _ in range(2):
        budget.settle(budget.reserve(request("x", room=1)), request("x", room=1), (0, 0))
    with pytest.raises(Spent, match=r"judge.max_calls=5: "):
        budget.reserve(request("x", room=1))
    told_before = budget.forecast([one] * 1000)
    assert told_before == "about 1,600,000 input tokens, at most 100,000 output tokens: at most about 4.20 USD"
    assert "judge.price_in= and judge.price_out=" in Budget(EndpointSettings(), "judge").forecast([one])


def test_repeated_requests_count_against_the_limit_of_calls():
    with told(*[(500, {}, {})] * 9) as server, pytest.raises(UserError, match="judge.max_calls=3: .*sent"):
        ask(server, max_calls=3)
    assert len(server.bodies) == 3
