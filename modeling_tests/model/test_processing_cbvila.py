import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_processor, tiny_tokenizer
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, BertTokenizer, PreTrainedConfig

from transformers_cbvila.model.image_processing_cbvila import CBViLAImageProcessor
from transformers_cbvila.model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from transformers_cbvila.model.processing_cbvila import CBViLAProcessor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "it", "red", "a", "circle", "yes", "##es", "?"]
PAD, UNK, CLS, SEP, MASK, IS, IT, RED, A, CIRCLE, YES, ES, QUESTION = range(len(WORDS))


def build(add_sep_token: bool = True, **tokenizer_options) -> CBViLAProcessor:
    return tiny_processor(WORDS, 8, add_sep_token, **{"model_max_length": None, **tokenizer_options})


@pytest.fixture
def processor() -> CBViLAProcessor:
    return build()


@pytest.fixture
def image() -> np.ndarray:
    return np.zeros((8, 8, 3), dtype=np.uint8)


# Calls: outputs


def test_processor_image_and_text(processor: CBViLAProcessor, image: np.ndarray):
    batch = processor(image, "Is it red?", return_tensors="pt")
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask"}
    assert batch["pixel_values"].shape == (1, 3, 8, 8)
    assert batch["input_ids"].tolist() == [[CLS, IS, IT, RED, QUESTION, SEP]]
    assert batch["attention_mask"].tolist() == [[1] * 6]
    assert batch["input_ids"].dtype == torch.int64


def test_processor_images_or_text_alone(processor: CBViLAProcessor, image: np.ndarray):
    assert set(processor(images=[image, image])) == {"pixel_values"}
    assert set(processor(text="red")) == {"input_ids", "attention_mask"}


def test_processor_model_input_names(processor: CBViLAProcessor):
    assert processor.model_input_names == ["pixel_values", "input_ids", "attention_mask"]


def test_processor_return_tensors(processor: CBViLAProcessor, image: np.ndarray):
    assert processor(image, "red")["input_ids"] == [[CLS, RED, SEP]]
    arrays = processor(image, "red", return_tensors="np", image_index=[0])
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    assert arrays["image_index"].dtype == np.int64


def test_processor_passes_image_options(processor: CBViLAProcessor, image: np.ndarray):
    batch = processor(image, "red", size={"height": 4, "width": 6}, do_normalize=False, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 4, 6)
    assert batch["pixel_values"].max() == 0


def test_processor_add_sep_token_false():
    batch = build(add_sep_token=False)(text=["is it red", "red"], return_tensors="pt")
    assert batch["input_ids"].tolist() == [[CLS, IS, IT, RED], [CLS, RED, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_processor_tokens_equal_the_tokenizer(processor: CBViLAProcessor):
    texts = ["Is it a red circle?", "yes", "unknown [SEP] yeses"]
    expected = processor.tokenizer(texts, padding=True)
    batch = processor(text=texts)
    assert batch["input_ids"] == expected["input_ids"]
    assert batch["attention_mask"] == expected["attention_mask"]


# Padding and truncation


def test_processor_pads_on_the_right():
    batch = build(padding_side="left")(text=["is it", "red"])
    assert batch["input_ids"] == [[CLS, IS, IT, SEP], [CLS, RED, SEP, PAD]]


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({}, [5, 5]),
        ({"padding": True}, [5, 5]),
        ({"padding": "longest"}, [5, 5]),
        ({"padding": False}, [5, 3]),
        ({"padding": "do_not_pad"}, [5, 3]),
        ({"padding": "max_length", "max_length": 7}, [7, 7]),
        ({"pad_to_multiple_of": 4}, [8, 8]),
    ],
)
def test_processor_padding(processor: CBViLAProcessor, options: dict, lengths: list):
    batch = processor(text=["is it red", "yes"], **options)
    assert [len(row) for row in batch["input_ids"]] == lengths
    assert [len(row) for row in batch["attention_mask"]] == lengths
    assert [sum(row) for row in batch["attention_mask"]] == [5, 3]


def test_processor_pads_one_text_to_max_length(processor: CBViLAProcessor):
    assert processor(text="yes", padding="max_length", max_length=5)["input_ids"] == [[CLS, YES, SEP, PAD, PAD]]


def test_processor_padding_max_length_needs_a_limit(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match="padding='max_length' needs a limit.*max_length"):
        processor(text="yes", padding="max_length")


def test_processor_truncation_keeps_tokens_that_fit():
    text = "is it a red circle"
    assert build()(text=text, truncation=True, max_length=4)["input_ids"] == [[CLS, IS, IT, SEP]]
    without_sep = build(add_sep_token=False)(text=text, truncation=True, max_length=4)
    assert without_sep["input_ids"] == [[CLS, IS, IT, A]]
    assert without_sep["attention_mask"] == [[1, 1, 1, 1]]


def test_processor_truncation_side_left():
    batch = build(truncation_side="left")(text="is it red", truncation="longest_first", max_length=4)
    assert batch["input_ids"] == [[CLS, IT, RED, SEP]]


def test_processor_truncation_to_model_max_length():
    assert build(model_max_length=3)(text="is it red", truncation=True)["input_ids"] == [[CLS, IS, SEP]]


@pytest.mark.parametrize(("add_sep_token", "fits"), [(True, "is it"), (False, "is it a")])
def test_processor_rejects_texts_longer_than_the_model(add_sep_token: bool, fits: str):
    processor = build(add_sep_token, model_max_length=4)
    assert len(processor(text=fits)["input_ids"][0]) == 4
    with pytest.raises(ValueError, match=r"text 1 has 5 tokens.*limit is 4.*truncation=True"):
        processor(text=[fits, f"{fits} red"])


def test_processor_rejects_texts_longer_than_max_length(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match=r"text 0 has 5 tokens.*limit is 4.*truncation=True"):
        processor(text="is it red", max_length=4)


@pytest.mark.parametrize("truncation", [False, "do_not_truncate"])
def test_processor_truncation_false_rejects_long_texts(truncation):
    with pytest.raises(ValueError, match="limit is 4"):
        build(model_max_length=4)(text="is it red", truncation=truncation)


def test_processor_rejects_impossible_limits(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match="truncation=True needs a limit.*max_length"):
        processor(text="red", truncation=True)
    with pytest.raises(ValueError, match="max_length=2 leaves no room"):
        processor(text="red", truncation=True, max_length=2)
    with pytest.raises(ValueError, match="max_length=9 is above the 8 tokens"):
        build(model_max_length=8)(text="red", max_length=9)
    with pytest.raises(ValueError, match="sometimes"):
        processor(text="red", truncation="sometimes")
    with pytest.raises(ValueError, match="sometimes"):
        processor(text="red", padding="sometimes")


def test_processor_takes_any_length_without_a_limit(processor: CBViLAProcessor):
    assert len(processor(text="red " * 1000)["input_ids"][0]) == 1002


# Bad input


def test_processor_needs_images_or_text(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match="neither images nor text"):
        processor()


@pytest.mark.parametrize("empty", ["", "  \n", "\u200b"])
def test_processor_rejects_empty_text(processor: CBViLAProcessor, empty: str):
    with pytest.raises(ValueError, match="text 1 is empty"):
        processor(text=["red", empty])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "text must be a string or a list of strings, got int"),
        (["red", None], "item 1 is of type NoneType"),
        ([["red"]], "item 0 is of type list"),
        ([], "text is an empty list"),
    ],
)
def test_processor_rejects_text_of_other_types(processor: CBViLAProcessor, text, message: str):
    with pytest.raises(ValueError, match=message):
        processor(text=text)


def test_processor_rejects_unknown_option(processor: CBViLAProcessor, image: np.ndarray):
    with pytest.raises(TypeError, match=r"\['trunctation'\].*truncation.*do_resize"):
        processor(image, "red", trunctation=True)


# What callers that serve many models pass: all of transformers' groups, and the options of other tokenizers.
ALL_GROUPS = ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs")


@pytest.mark.parametrize(
    "options",
    [
        {group: {} for group in ALL_GROUPS},
        {group: None for group in ALL_GROUPS},
        {"audio_kwargs": {"padding": "longest", "sampling_rate": 16000}, "videos_kwargs": {"fps": 2, "do_resize": 7}},
        {"common_kwargs": {"padding": True}, "padding": True},
        {"text_kwargs": {"return_tensors": "pt"}, "images_kwargs": {"return_tensors": "pt"}},
        {"common_kwargs": {"return_tensors": "pt", "truncation": True, "max_length": 4}},
        {"padding_side": "right", "return_token_type_ids": False, "return_attention_mask": True, "verbose": True},
        {"add_special_tokens": True, "text_kwargs": {"stride": 0, "is_split_into_words": False, "text_pair": None}},
        {"return_offsets_mapping": False, "return_length": None, "videos": None, "audio": None},
    ],
    ids=str,
)
def test_processor_accepts_kwargs_groups(processor: CBViLAProcessor, image: np.ndarray, options: dict):
    plain, made = processor(image, "red"), processor(image, "red", **options)
    assert made.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(torch.as_tensor(made[name]), torch.as_tensor(np.array(plain[name])), msg=name)


def test_processor_without_special_tokens_or_mask(processor: CBViLAProcessor):
    options = {"add_special_tokens": False, "return_attention_mask": False}
    assert dict(processor(text=["red", "is it red"], **options)) == {"input_ids": [[RED, PAD, PAD], [IS, IT, RED]]}
    cut = processor(text="is it red", add_special_tokens=False, truncation=True, max_length=2)
    assert cut["input_ids"] == [[IS, IT]]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"padding_side": "left"}, ValueError, "padding_side='left': positions are counted from the left"),
        (
            {"text_kwargs": {"return_token_type_ids": True}},
            ValueError,
            "return_token_type_ids=True: the models take no token types",
        ),
        ({"return_offsets_mapping": True}, ValueError, "return_offsets_mapping=True.*processor.tokenizer"),
        ({"text_pair": "a circle"}, ValueError, "text_pair='a circle'"),
        ({"is_split_into_words": True}, ValueError, "is_split_into_words=True"),
        ({"text_kwargs": {"do_resize": False}}, TypeError, r"\['do_resize'\] in text_kwargs"),
        ({"images_kwargs": {"padding": True}}, TypeError, r"\['padding'\] in images_kwargs"),
        ({"common_kwargs": {"pading": True}}, TypeError, r"\['pading'\] in common_kwargs"),
        ({"tokenizer_kwargs": {}}, TypeError, "no group of options 'tokenizer_kwargs'"),
        ({"text_kwargs": "padding"}, TypeError, "text_kwargs is 'padding'"),
        ({"text_kwargs": {"padding": False}, "padding": True}, ValueError, "padding is given twice"),
        ({"text_kwargs": {"padding": True}, "padding": True}, ValueError, "padding is given twice"),
        ({"common_kwargs": {"padding": False}, "padding": True}, ValueError, "padding is given twice"),
        (
            {"text_kwargs": {"return_tensors": "np"}, "return_tensors": "pt"},
            ValueError,
            "return_tensors is given twice",
        ),
        ({"videos": [1]}, ValueError, r"videos is \[1\]: CB-ViLA takes images and texts only"),
    ],
)
def test_processor_rejects_unsupported_options(processor: CBViLAProcessor, image: np.ndarray, options, error, message):
    with pytest.raises(error, match=message):
        processor(image, "red", **options)


def test_processor_names_a_bad_image(processor: CBViLAProcessor, image: np.ndarray):
    with pytest.raises(FileNotFoundError, match=r"image 1 of 2: .*nowhere\.png"):
        processor([image, "nowhere.png"], ["red", "red"])


@pytest.mark.parametrize(("images", "texts"), [(1, 2), (3, 1)])
def test_processor_rejects_counts_that_differ(processor: CBViLAProcessor, image: np.ndarray, images: int, texts: int):
    with pytest.raises(ValueError, match=rf"{images} image\(s\) and {texts} text\(s\).*image_index"):
        processor([image] * images, ["red"] * texts)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda x: np.array(x, dtype=np.uint8)])
def test_processor_image_index_of_several_texts(processor: CBViLAProcessor, image: np.ndarray, kind):
    batch = processor([image] * 2, ["red", "yes", "a"], image_index=kind([1, 0, 1]), return_tensors="pt")
    assert batch["image_index"].tolist() == [1, 0, 1]
    assert batch["image_index"].dtype == torch.int64
    assert (len(batch["pixel_values"]), len(batch["input_ids"])) == (2, 3)


def test_processor_takes_a_list_of_images_per_text(processor: CBViLAProcessor, image: np.ndarray):
    other = 255 - image
    batch = processor(images=[[image, other], [other, image]], text=["red", "yes"], return_tensors="pt")
    rows = processor(images=[image, other, other, image], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], rows.unflatten(0, (2, 2)))
    one_each = processor(images=[[image], [other]], text=["red", "yes"], return_tensors="pt")
    assert torch.equal(one_each["pixel_values"], rows[:2])
    one_without = processor(images=[[image], []], text=["red", "yes"], return_tensors="pt")
    assert one_without["pixel_values"].shape[0] == 1 and one_without["input_ids"].shape[0] == 2
    as_lists = processor(images=[[image, other], [other, image]], text=["red", "yes"])["pixel_values"]
    assert [len(group) for group in as_lists] == [2, 2]


@pytest.mark.parametrize("sizes", [(2, 0), (2, 1), (2,), (1, 1, 1)])
def test_processor_rejects_image_lists_that_do_not_fit(processor: CBViLAProcessor, image: np.ndarray, sizes: tuple):
    with pytest.raises(ValueError, match="image"):
        processor(images=[[image] * size for size in sizes], text=["red", "yes"], return_tensors="pt")


@pytest.mark.parametrize(
    ("image_index", "message"),
    [
        ([0, 2], r"holds 2, but the 2 image\(s\)"),
        ([0, -1], "holds -1"),
        ([0], r"2 whole numbers.*shape \(1,\)"),
        ([[0, 1]], r"shape \(1, 2\)"),
        ([0.0, 1.0], "float32"),
        ([True, False], "bool"),
    ],
)
def test_processor_rejects_bad_image_index(processor: CBViLAProcessor, image: np.ndarray, image_index, message: str):
    with pytest.raises(ValueError, match=message):
        processor([image] * 2, ["red", "yes"], image_index=image_index)


def test_processor_image_index_needs_images_and_text(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match="pass images and text with it"):
        processor(text="red", image_index=[0])


def test_processor_needs_sep_and_pad_tokens():
    with pytest.raises(ValueError, match="no sep_token and no pad_token"):
        build(sep_token=None, pad_token=None)


# Answers


@pytest.mark.parametrize("add_sep_token", [True, False])
def test_encode_answers_end_in_sep_without_cls(add_sep_token: bool):
    batch = build(add_sep_token).encode_answers(["a red circle", "yes"])
    assert batch["labels"].tolist() == [[A, RED, CIRCLE, SEP], [YES, SEP, -100, -100]]
    assert batch["labels"].dtype == torch.int64
    assert set(batch) == {"labels"}


def test_encode_answers_of_one_answer_as_lists(processor: CBViLAProcessor):
    assert processor.encode_answers("yes", return_tensors=None)["labels"] == [[YES, SEP]]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "answers is an empty list"),
        (["yes", " "], "answer 1 is empty"),
        (None, "answers must be a string or a list of strings, got NoneType"),
        ([1], "item 0 is of type int"),
    ],
)
def test_encode_answers_rejects_bad_answers(processor: CBViLAProcessor, answers, message: str):
    with pytest.raises(ValueError, match=message):
        processor.encode_answers(answers)


def test_encode_answers_rejects_long_answers():
    assert build(model_max_length=4).encode_answers("a red circle")["labels"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"answer 0 has 5 tokens.*limit is 4; shorten it"):
        build(model_max_length=4).encode_answers("is a red circle")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ([CLS, RED, CIRCLE, SEP, YES], "red circle"),
        ([RED, SEP, PAD, PAD], "red"),
        ([SEP, RED, SEP, YES], "red"),
        ([CLS, SEP, RED], ""),
        ([CLS, YES, ES, PAD], "yeses"),
        ([YES, SEP, -100, -100], "yes"),
        ([CLS, YES, -100], "yes"),
        ([], ""),
    ],
)
def test_decode_answers(processor: CBViLAProcessor, row: list, answer: str):
    assert processor.decode_answers([row]) == [answer]
    assert processor.decode_answers(torch.tensor([row, row])) == [answer] * 2
    assert processor.decode_answers(np.array([row])) == [answer]


def test_encode_and_decode_answers_round_trip(processor: CBViLAProcessor):
    answers = ["a red circle", "yes"]
    assert processor.decode_answers(processor.encode_answers(answers)["labels"]) == answers


def test_decode_answers_rejects_one_row_of_ids(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match=r"two-dimensional.*\[ids\]"):
        processor.decode_answers([CLS, YES])


def test_processor_decode_equals_the_tokenizer(processor: CBViLAProcessor):
    assert processor.decode([CLS, RED, SEP], skip_special_tokens=True) == "red"
    assert processor.batch_decode([[RED], [YES]]) == ["red", "yes"]


# Saving and loading


class ProbeConfig(PreTrainedConfig):
    model_type = "cbvila-processor-test"


@pytest.fixture
def registered() -> None:
    AutoConfig.register(ProbeConfig.model_type, ProbeConfig, exist_ok=True)
    AutoProcessor.register(ProbeConfig, CBViLAProcessor, exist_ok=True)
    backends = {"pil": CBViLAImageProcessorPil, "torchvision": CBViLAImageProcessor}
    AutoImageProcessor.register(ProbeConfig, image_processor_classes=backends, exist_ok=True)


@pytest.mark.parametrize("add_sep_token", [True, False])
@pytest.mark.parametrize("loader", [CBViLAProcessor, AutoProcessor])
def test_processor_save_and_load(registered: None, tmp_path: Path, image: np.ndarray, loader, add_sep_token: bool):
    processor = build(add_sep_token, model_max_length=6)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["add_sep_token"] is add_sep_token
    assert saved["processor_class"] == "CBViLAProcessor"

    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is CBViLAProcessor
    assert (loaded.add_sep_token, loaded.tokenizer.model_max_length) == (add_sep_token, 6)
    before, after = (each(image, "is it red", return_tensors="pt") for each in (processor, loaded))
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=0.02, rtol=0)


def test_saved_tokenizer_returns_model_inputs(tmp_path: Path):
    given = tiny_tokenizer(WORDS)
    CBViLAProcessor(CBViLAImageProcessorPil(size=8), given).save_pretrained(tmp_path)
    for loader in (AutoTokenizer, BertTokenizer):
        assert list(loader.from_pretrained(tmp_path)("is it red")) == ["input_ids", "attention_mask"]
    assert "token_type_ids" in given("is it red")  # which may serve another model


def test_processor_from_pretrained_overrides_options(registered: None, tmp_path: Path):
    build().save_pretrained(tmp_path)
    assert CBViLAProcessor.from_pretrained(tmp_path, add_sep_token=False).add_sep_token is False


def test_auto_image_processor_loads_ours(registered: None, tmp_path: Path):
    build().save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, (CBViLAImageProcessor, CBViLAImageProcessorPil))
    assert dict(loaded.size) == {"height": 8, "width": 8}
    assert type(AutoImageProcessor.from_pretrained(tmp_path, backend="pil")) is CBViLAImageProcessorPil


def test_processor_reads_columns_by_position(processor: CBViLAProcessor):
    """By iteration: a label is no position."""
    order = [2, 0, 1]
    words, pictures = ["red", "red red", "red red red"], [np.full((8, 8, 3), level, np.uint8) for level in (0, 9, 99)]
    texts, images = pd.Series(words, index=order), pd.Series(pictures, index=order)
    given, expected = processor(images, texts, return_tensors="pt"), processor(pictures, words, return_tensors="pt")
    assert all(torch.equal(given[name], expected[name]) for name in expected)
    assert torch.equal(processor.encode_answers(texts)["labels"], processor.encode_answers(words)["labels"])
    for bad in (set(words), {"a": "red"}, pd.DataFrame({"text": words})):
        with pytest.raises(ValueError, match="text is a "):
            processor(text=bad)


def test_postprocess_gives_back_the_pictures_that_were_processed(processor: CBViLAProcessor):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pixel_values = processor(images=list(pictures), return_tensors="pt").pixel_values
    again = processor.postprocess(pixel_values)
    assert np.array_equal([np.asarray(picture) for picture in again], pictures)


def test_postprocess_keeps_levels_of_a_processor_that_does_not_normalize(processor: CBViLAProcessor):
    processor.image_processor.do_normalize = False
    (picture,) = processor.postprocess(torch.tensor([-1.0, 0.2, 2.0]).view(1, 3, 1, 1))
    assert picture.getpixel((0, 0)) == (0, 51, 255)


def test_postprocess_rejects_what_is_no_batch_of_images(processor: CBViLAProcessor):
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*\(B, 3, H, W\)"):
        processor.postprocess(torch.zeros(3, 8, 8))
