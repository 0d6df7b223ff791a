"""The supervised span is the answer and its end of turn, nothing else; checked on token ids."""

import pytest
import torch
from PIL import Image

from align.batches.collators import Collator
from align.batches.padding import IGNORED, pad
from align.batches.rendering import Renderer
from align.data.images import encode_png
from align.errors import UserError
from align.families import family_of
from align.models.processors import load_processor
from align.rows import ImageRef, Row
from align.settings import ModelSettings
from tests.conftest import REAL

END = {"llava": "</s>", "qwen2_vl": "<|im_end|>"}
IMAGE = encode_png(Image.new("RGB", (100, 60), (200, 30, 30)))


@pytest.mark.parametrize("images", [(), (IMAGE,)], ids=["text", "image"])
@pytest.mark.parametrize("answer", ["sorry i can not help with that", "this is a knife"])
def test_the_supervised_span_is_the_answer_and_its_end_of_turn(any_renderer, images, answer):
    rendered = any_renderer.render(Row("a", "how do i use this", images), answer)
    tokenizer = any_renderer.processor.tokenizer
    assert tokenizer.decode(rendered.answer_ids[:-1]).strip() == answer
    assert tokenizer.convert_ids_to_tokens(rendered.answer_ids[-1]) == END[any_renderer.family.model_type]
    assert any_renderer.image_token_id not in rendered.answer_ids
    assert (any_renderer.image_token_id in rendered.prompt_ids) == bool(images)


@pytest.mark.parametrize("images", [(), (IMAGE,)], ids=["text", "image"])
def test_the_prompt_is_what_the_processor_makes_of_it_for_generation(any_renderer, images):
    """apply_chat_template with tokenize=True is the road that users of transformers take."""
    row = Row("a", "how do i use this", images)
    content = [{"type": "image", "image": Image.new("RGB", (100, 60), (200, 30, 30))} for _ in images]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": row.prompt}]}
    theirs = any_renderer.processor.apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert any_renderer.render(row).prompt_ids == list(theirs["input_ids"][0])


def test_a_real_llava_image_is_576_tokens_and_its_words_are_tokenised_in_context(shared):

    renderer = Renderer(load_processor(str(shared / "hub" / REAL["llava"])), family_of("llava"))
    rendered = renderer.render(Row("a", "What is this?", (IMAGE,)), "A cat.")
    tokens = renderer.processor.tokenizer.convert_ids_to_tokens
    assert rendered.prompt_ids.count(renderer.image_token_id) == 576
    assert rendered.prompt_ids[0] == renderer.processor.tokenizer.bos_token_id
    assert tokens(rendered.answer_ids) == ["▁A", "▁cat", ".", "</s>"]


def test_an_answer_that_would_merge_with_the_prompt_is_tokenised_alone(any_renderer):
    rendered = any_renderer.render(Row("a", "hello"), "\n\nhello")
    alone = any_renderer.render(Row("a", "hello"))
    assert rendered.prompt_ids == alone.prompt_ids


@pytest.mark.parametrize(
    ("row", "answer", "expected"),
    [
        (Row("a", "p"), "", "response is empty"),
        (Row("a", "p"), "  ", "response is empty"),
        (Row("a", "p", (ImageRef(path="/nowhere.png"),)), "x", "does not exist"),
    ],
)
def test_what_cannot_be_rendered_names_the_row(any_renderer, row, answer, expected):
    with pytest.raises(UserError, match=f"row a.*{expected}"):
        any_renderer.render(row, answer)


@pytest.mark.parametrize("where", ["prompt", "answer"])
def test_the_image_token_in_a_text_is_refused(any_renderer, where):
    texts = {"prompt": "p", "answer": "q"} | {where: f"look {any_renderer.image_token} here"}
    with pytest.raises(UserError, match=f"{'response' if where == 'answer' else where} contains .* token '"):
        any_renderer.render(Row("a", texts["prompt"]), texts["answer"])


def test_an_end_of_turn_inside_an_answer_is_refused(any_renderer):
    end = END[any_renderer.family.model_type]
    with pytest.raises(UserError, match="the response contains .* token '"):
        any_renderer.render(Row("a", "p"), f"this is {end} a knife")


def test_a_batch_supervises_every_answer_token_and_nothing_else(any_renderer):
    rows = [Row("a", "how do i use this", (IMAGE,)), Row("b", "hello"), Row("c", "tell me how", (IMAGE,))]
    answers = ["this is a knife", "sorry", "it is red"]
    rendered = [any_renderer.render(row, answer) for row, answer in zip(rows, answers, strict=True)]
    batch = pad(rendered, any_renderer.pad_token_id)
    for i, row in enumerate(rendered):
        supervised = batch["labels"][i] != IGNORED
        assert batch["input_ids"][i][supervised].tolist() == row.answer_ids
        assert batch["labels"][i][supervised].tolist() == row.answer_ids
        assert batch["attention_mask"][i].sum() == row.length
    assert not ((batch["labels"] == any_renderer.image_token_id).any())


def test_left_padding_puts_every_prompt_at_the_end(any_renderer):
    rendered = [any_renderer.render(Row("a", "how do i use this", (IMAGE,))), any_renderer.render(Row("b", "hello"))]
    batch = pad(rendered, any_renderer.pad_token_id, left=True)
    for i, row in enumerate(rendered):
        assert batch["input_ids"][i][-len(row.prompt_ids) :].tolist() == row.prompt_ids


def test_a_row_longer_than_max_length_is_an_error_and_is_never_cut(renderer, family_name):
    from align.methods.trainer import to_dataset

    collate = Collator(renderer(family_name), max_length=10)
    with pytest.raises(UserError, match=r"row long has \d+ tokens with its `response`, more than train.max_length=10"):
        collate(list(to_dataset([Row("long", "how do i use this thing", response="this is a knife " * 5)])))


def test_a_row_without_response_is_named(renderer, family_name):
    from align.methods.trainer import to_dataset

    with pytest.raises(UserError, match="row r of s has no `response`"):
        Collator(renderer(family_name))(list(to_dataset([Row("r", "p", source="s")])))


def test_a_system_prompt_goes_before_the_request(shared, family_name):
    """LLaVA's template has none of its own, Qwen2-VL's is replaced."""
    settings = ModelSettings(system_prompt="Be brief.")
    processor = load_processor(str(shared / "hub" / REAL[family_name]))
    asked = Renderer(processor, family_of(family_name), settings).prompt_text(Row("a", "hello"))
    assert (
        asked
        == {
            "llava": "Be brief. USER: hello ASSISTANT:",
            "qwen2_vl": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
        }[family_name]
    )


def test_a_padded_image_is_whole_on_a_square_of_the_mean_colour(shared):
    processor = load_processor(str(shared / "hub" / REAL["llava"]))
    row = Row("a", "what is this", (IMAGE,))  # 100 x 60, of one colour
    crop, square = (
        Renderer(processor, family_of("llava"), ModelSettings(image_aspect_ratio=ratio))
        .render(row)
        .image_inputs["pixel_values"][0]
        for ratio in (None, "pad")
    )
    assert crop.std(dim=(1, 2)).max() < 1e-5  # nothing of the image's sides, nor of anything else
    assert (
        square[:, 0, :].abs().max() < 0.02
    )  # the mean colour is 0 after normalisation, but for its rounding to 8 bits
    assert torch.allclose(square[:, 168, 5], crop[:, 168, 168], atol=1e-3)


@pytest.mark.slow
def test_the_pixels_of_a_image_bound_its_tokens(shared):
    image = encode_png(Image.new("RGB", (2000, 1500)))
    path = str(shared / "hub" / REAL["qwen2_vl"])
    for most, tokens in ((602112, 768), (100352, 128)):  # 28 x 28 pixels a token
        settings = ModelSettings(max_pixels=most)
        renderer = Renderer(load_processor(path, settings), family_of("qwen2_vl"), settings)
        found = renderer.render(Row("a", "p", (image,))).prompt_ids.count(renderer.image_token_id)
        assert 0.9 * tokens < found <= tokens
    with pytest.raises(UserError, match="model.min_pixels=3136 is more than model.max_pixels=2000"):
        load_processor(path, ModelSettings(max_pixels=2000))
    with pytest.raises(UserError, match="model.max_pixels: CLIPImageProcessor.* resizes .*to one size"):
        load_processor(str(shared / "hub" / REAL["llava"]), ModelSettings(max_pixels=100352))
    with pytest.raises(UserError, match="model.image_aspect_ratio=square: expected pad, or null"):
        load_processor(path, ModelSettings(image_aspect_ratio="square"))
