import multiprocessing

import pytest
import torch
from tiny import half_image, tiny_rows

from transformers_cbvila.data.pairs import ImageTextPairs, stable_id


def captions_of(pairs, epochs=40):
    texts = []
    for epoch in range(epochs):
        pairs.set_epoch(epoch)
        texts += [pairs[row]["text"] for row in range(len(pairs))]
    return texts


def same(first, second):
    return first["text"] == second["text"] and first["image"].tobytes() == second["image"].tobytes()


def test_pairs_draw_by_seed_epoch_and_row_only():
    options = {"crop_scale": 0.5, "flip": True}
    pairs, again = ImageTextPairs(tiny_rows(), **options), ImageTextPairs(tiny_rows(), **options)
    torch.manual_seed(5)
    forward = [pairs[row] for row in range(8)]
    torch.manual_seed(6)
    backward = [again[row] for row in reversed(range(8))][::-1]
    assert all(same(*both) for both in zip(forward, backward, strict=True))
    again.set_epoch(1)
    other_seed = ImageTextPairs(tiny_rows(), seed=1, **options)
    for changed in (again, other_seed):
        assert not all(same(forward[row], changed[row]) for row in range(8))
    again.set_epoch(0)
    assert same(again[3], forward[3])


def test_pairs_return_the_generator_for_masks():
    pairs = ImageTextPairs(tiny_rows())
    first, second, other = pairs[2]["generator"], pairs[2]["generator"], pairs[3]["generator"]
    numbers = torch.rand(3, generator=first)
    assert torch.equal(torch.rand(3, generator=second), numbers)
    assert not torch.equal(torch.rand(3, generator=other), numbers)


def _texts_of(pairs, queue, asked):
    while asked.get():
        queue.put([pairs[row]["text"] for row in range(len(pairs))])


def test_pairs_set_epoch_reaches_forked_workers():
    """A worker forked before the epoch is set must draw for that epoch."""
    context = multiprocessing.get_context("fork")
    pairs, queue, asked = ImageTextPairs(tiny_rows()), context.Queue(), context.Queue()
    worker = context.Process(target=_texts_of, args=(pairs, queue, asked))
    worker.start()
    for epoch in (0, 3):
        pairs.set_epoch(epoch)
        asked.put(True)
        assert queue.get(timeout=30) == [pairs[row]["text"] for row in range(8)]
    asked.put(False)
    worker.join(30)


def test_pairs_keyword_probability_is_the_rate_of_keywords():
    rows = [{"image": half_image("red", "top"), "captions": ["a"], "keywords": ["b", "c", "d", "e"]}]
    assert set(captions_of(ImageTextPairs(rows, keyword_probability=0.0))) == {"a"}
    texts = captions_of(ImageTextPairs(rows, keyword_probability=1.0), epochs=200)
    lengths = {text.count(",") for text in texts}
    assert lengths == {1, 2, 3}
    for text in texts:
        words = text.split(", ")
        assert words[0] == "a" and len(set(words)) == len(words) and set(words) <= set("abcde")
    share = sum("," in text for text in captions_of(ImageTextPairs(rows), epochs=400)) / 400
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("keywords", [None, [], ...])
def test_pairs_without_keywords_give_the_caption(keywords):
    row = {"image": half_image("red", "top"), "captions": ["a"]} | ({} if keywords is ... else {"keywords": keywords})
    assert set(captions_of(ImageTextPairs([row], keyword_probability=1.0))) == {"a"}


def test_pairs_draw_every_caption_and_return_known_texts():
    rows = [{"image": half_image("red", "top"), "captions": ["a", "b", "c"], "keywords": ["k"]}]
    pairs, seen = ImageTextPairs(rows, keyword_probability=0.5), set()
    for epoch in range(60):
        pairs.set_epoch(epoch)
        example = pairs[0]
        caption = example["text"].split(", ")[0]
        seen.add(caption)
        assert example["text_id"] == stable_id(caption), "keywords do not make another text of it"
        assert example["known_text_ids"] == [stable_id(text) for text in "abc"]
    assert seen == set("abc")


def test_pairs_image_id_is_of_the_uncropped_image():
    rows = [{"image": half_image(colour, "top"), "captions": ["a"]} for colour in ("red", "red", "blue")]
    ids = [ImageTextPairs(rows, crop_scale=0.3, flip=True)[row]["image_id"] for row in range(3)]
    assert ids[0] == ids[1] != ids[2]
    assert all(0 <= identity < 2**63 for identity in ids)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_pairs_reject_impossible_keyword_probability(share):
    with pytest.raises(ValueError, match=f"keyword_probability={share}"):
        ImageTextPairs(tiny_rows(), keyword_probability=share)


def test_pairs_name_a_row_without_caption():
    with pytest.raises(ValueError, match="Row 1: it has no caption"):
        ImageTextPairs([tiny_rows()[0], {"image": half_image("red", "top"), "captions": []}])[1]


def with_negatives(negatives, captions=("a", "b")):
    return [{"image": half_image("red", "top"), "captions": list(captions), "negative_captions": negatives}]


def negatives_of(rows, epochs=40):
    pairs, found = ImageTextPairs(rows), set()
    for epoch in range(epochs):
        pairs.set_epoch(epoch)
        example = pairs[0]
        found.add((example["text"], example.get("negative_text")))
    return found


@pytest.mark.parametrize(
    "negatives, expected",
    [
        (["not a", ""], {("a", "not a"), ("b", None)}),  # each goes with its caption
        (["x", "y", ""], {(text, negative) for text in "ab" for negative in "xy"}),
        ("x", {("a", "x"), ("b", "x")}),
        ([], {("a", None), ("b", None)}),
        (None, {("a", None), ("b", None)}),
    ],
)
def test_pairs_give_negative_captions(negatives, expected):
    assert negatives_of(with_negatives(negatives)) == expected


def test_pairs_with_negative_captions_draw_the_same_views_and_masks():
    options = {"crop_scale": 0.5, "flip": True}
    first = ImageTextPairs(with_negatives(["not a", "not b"]), **options)[0]
    second = ImageTextPairs(with_negatives(None), **options)[0]
    assert same(first, second)
    assert torch.equal(torch.rand(3, generator=first["generator"]), torch.rand(3, generator=second["generator"]))
