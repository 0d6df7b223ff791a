"""No image and no question of an evaluation set is trained on."""

import io
import re

import pytest
from PIL import Image

from align.config.compose import compose_run
from align.config.files import available
from align.data.assembly import training_data
from align.data.images import encode_png, pixel_hash
from align.data.overlap import Trained, find_overlap, question_hash, refuse_overlap, short_hash
from align.data.overlap import index as index_records
from align.data.views import show
from align.errors import UserError
from align.evaluation.selection import refuse_overlap_with_benchmarks
from align.miniature.rows import EVALUATION, SUBSETS, _training_rows, evaluation_rows, training_rows
from align.rows import ImageRef, Row
from align.settings import Part


def index(rows) -> Trained:
    """The index of some rows, through the records that a run folder keeps."""
    return index_records(
        {
            "id": row.id,
            "images": [short_hash(pixel_hash(image, row.id)) for image in row.images if image.bytes],
            "question": question_hash(row),
        }
        for row in rows
    )


@pytest.mark.parametrize("recipe", available())
def test_nothing_of_the_miniatures_evaluation_sets_is_trained_on(recipe):
    config = compose_run([f"recipe={recipe}", "model=mini_llava"]).config
    refuse_overlap_with_benchmarks(config.evaluate, training_data(config).records())


def test_validation_and_test_rows_are_disjoint_too():
    for kind in EVALUATION:
        overlap = find_overlap(index(evaluation_rows(kind, 100, "validation")), evaluation_rows(kind, 100, "test"))
        assert (overlap.images, overlap.questions) == ([], [])


@pytest.mark.parametrize("subset", SUBSETS)
def test_another_seed_draws_other_rows_and_the_same_seed_the_same(subset):
    rows = []
    for seed in (0, 0, 1):
        _training_rows.cache_clear()  # else the second would be the first one
        rows.append(training_rows(Part(subset=subset, rows=50, seed=seed)))
    assert rows[0] == rows[1] != rows[2]


def test_the_same_pixels_in_another_format_are_found():
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    buffer = io.BytesIO()
    image.save(buffer, format="BMP")
    train, test = Row("t", "a", (encode_png(image),)), Row("e", "b", (ImageRef(bytes=buffer.getvalue()),))
    assert find_overlap(index([train]), [test]).images == [("t", "e")]
    with pytest.raises(UserError, match="1 training rows have the image of a row of vlsbench .*t = e"):
        refuse_overlap(index([train]), [test], "vlsbench")


def test_the_same_question_in_other_case_and_punctuation_is_found_unless_all_items_share_it():
    train, test = Row("t", "What is this?"), Row("e", "what  is THIS")
    assert find_overlap(index([train]), [test]).questions == [("t", "e")]
    assert find_overlap(index([train]), [test], shared_prompts=["What is this"]).questions == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Write it in C", "Write it in C++"),
        ("What is 5 * 3?", "What is 5 + 3?"),
        ("x > 5", "x < 5"),
        ("की", "का"),
        ("ที่", "ทู"),
    ],
)
def test_signs_and_vowel_marks_that_carry_meaning_tell_questions_apart(one, other):
    assert find_overlap(index([Row("t", one)]), [Row("e", other)]).questions == []


def test_a_request_that_the_prompt_or_the_image_hides_is_found_too():
    item = Row("e", "The image shows a list. Fill it in.", request="How is tea made?", images=(_drawn(1),))
    found = find_overlap(index([Row("t", "how is tea made")]), [item], shared_prompts=[item.prompt])
    assert found.questions == [("t", "e")]
    assert find_overlap(index([Row("t", item.prompt)]), [item], shared_prompts=[item.prompt]).questions == []


def test_a_question_over_another_image_is_told_and_no_overlap():
    trained = index([Row("t", "What does this show?", images=(_drawn(1),))])
    other, same = (Row("e", "What does this show?", images=(_drawn(shade),)) for shade in (2, 1))
    assert find_overlap(trained, [other]).over_others == [("t", "e")]
    line = refuse_overlap(trained, [other], "mossbench")
    assert re.fullmatch("1 training rows .*question of a row of mossbench .*another image: t = e", line)
    with pytest.raises(UserError, match="1 training rows have the image of a row of mossbench"):
        refuse_overlap(trained, [same], "mossbench")
    # A row that is trained on without its image has nothing but its question.
    with pytest.raises(UserError, match=r"1 training rows have the question of a row of mossbench .*on_overlap=drop"):
        refuse_overlap(index([Row("t", "What does this show?")]), [other], "mossbench")


def test_a_row_without_words_asks_nothing():
    assert find_overlap(index([Row("t", "")]), [Row("e", "")]).questions == []


def _drawn(shade: int) -> ImageRef:
    return encode_png(Image.new("RGB", (8, 8), (shade, 0, 0)))


def test_a_caption_before_the_question_does_not_hide_it():
    train = show(Row("t", "What is this?", images=(ImageRef(path="x.png"),), caption="a cup"), "caption", [])
    assert train.prompt == "a cup\nWhat is this?"
    assert find_overlap(index([train]), [Row("e", "what is this")]).questions == [("t", "e")]
