"""Prompts with images in them, chats, and the pipeline that takes both."""

import pytest
import torch
from tiny import noise_image
from tiny_language import (
    BOS,
    EOS,
    IMAGE,
    PAD,
    language_tokenizer,
    reading_model,
    reading_processor,
    save_language_model,
    save_vision_model,
)
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor, pipeline

from transformers_cbvila import (
    CBViLAConditionalGenerationProcessor,
    CBViLAForConditionalGeneration,
    CBViLAImageProcessorPil,
)
from transformers_cbvila.data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration

DOG, CAT = noise_image(seed=1), noise_image(seed=2)
SHOT = "<image> this is a dog.<image> this is a"
THIS, IS, A, DOG_ID, STOP = 4, 5, 6, 7, 21


@pytest.fixture(scope="module")
def processor():
    return reading_processor()


def content(*parts):
    """The content of a message: texts, and images of which each is `DOG` or `CAT`."""
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]


def chat(*parts):
    return [{"role": "user", "content": content(*parts)}]


# Texts


def test_one_shot_prompt(processor):
    batch = processor(images=[DOG, CAT], text=SHOT, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[IMAGE, IMAGE, THIS, IS, A, DOG_ID, STOP, IMAGE, IMAGE, THIS, IS, A]]
    assert batch["pixel_values"].shape == (2, 3, 32, 32) and batch["attention_mask"].all()
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask"}


def test_batch_is_padded_on_the_left(processor):
    batch = processor(images=[[DOG], [CAT]], text=["<image> this is a", "<image> a"], return_tensors="pt")
    assert batch["input_ids"].tolist() == [[IMAGE, IMAGE, THIS, IS, A], [PAD, PAD, IMAGE, IMAGE, A]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [0, 0, 1, 1, 1]]
    right = processor(images=[DOG, CAT], text=["<image> this is a", "<image> a"], padding_side="right")
    assert right["input_ids"][1] == [IMAGE, IMAGE, A, PAD, PAD]


def test_texts_with_and_without_images(processor):
    batch = processor(images=[[], [DOG]], text=["this", "<image> a"])
    assert batch["input_ids"] == [[PAD, PAD, THIS], [IMAGE, IMAGE, A]] and len(batch["pixel_values"]) == 1
    assert set(processor(images=[[]], text="this")) == {"input_ids", "attention_mask"}
    assert set(processor(images=DOG)) == {"pixel_values"}


def test_first_token_of_texts_stands_before_the_image():
    tokenizer = language_tokenizer(bos_token="<bos>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    processor = CBViLAConditionalGenerationProcessor(CBViLAImageProcessorPil(), tokenizer)
    assert processor(images=DOG, text="<image> a")["input_ids"] == [[BOS, IMAGE, IMAGE, A]]
    (ids,) = processor.apply_chat_template(chat(DOG, "a"), tokenize=True, return_dict=True)["input_ids"]
    assert ids == [BOS, IMAGE, IMAGE, A]
    batch = CBViLADataCollatorForConditionalGeneration(processor)([{"image": DOG, "text": "a"}])
    assert batch["labels"].tolist() == [[-100, -100, -100, A, EOS]]


def test_number_of_tokens_per_image_and_their_name():
    processor = reading_processor(num_image_tokens=3, image_token="<picture>")
    assert processor.image_token_id == IMAGE
    assert processor(images=DOG, text="<picture> a")["input_ids"] == [[IMAGE] * 3 + [A]]
    assert processor.apply_chat_template(chat(DOG, "a")) == "<picture> a"


def test_tokenizer_of_the_caller_stays_as_it_is():
    tokenizer = language_tokenizer(pad_token=None, padding_side="right")
    processor = CBViLAConditionalGenerationProcessor(CBViLAImageProcessorPil(), tokenizer)
    assert "<image>" not in tokenizer.get_vocab() and tokenizer.padding_side == "right"
    assert processor.tokenizer.pad_token == "<eos>" and processor.tokenizer.padding_side == "left"
    with pytest.raises(ValueError, match="no pad_token and no eos_token"):
        CBViLAConditionalGenerationProcessor(
            CBViLAImageProcessorPil(), language_tokenizer(pad_token=None, eos_token=None)
        )


@pytest.mark.parametrize(
    "images, text, message",
    [
        ([DOG, CAT], "<image> a", r"1 text\(s\) have 1 <image>, for 2 image\(s\): write one <image>"),
        (None, "<image> a", r"have 1 <image>, for 0 image\(s\)"),
        (DOG, "a dog", r"have 0 <image>, for 1 image\(s\)"),
        ([[DOG, CAT], []], ["<image> a", "<image> a"], r"\[1, 1\] <image> and \[2, 0\] image\(s\)"),
        (None, "", "text 0 has no tokens"),
        (None, None, "neither images nor text"),
    ],
)
def test_images_and_texts_that_do_not_go_together(processor, images, text, message):
    with pytest.raises(ValueError, match=message):
        processor(images=images, text=text)


def test_truncation_does_not_cut_an_image(processor):
    cut = {"truncation": True, "max_length": 8}
    with pytest.raises(ValueError, match=r"to 8 tokens cuts the images of text 0, of whose 4 tokens 3 are left"):
        processor(images=[DOG, CAT], text=SHOT, **cut)
    assert processor(images=[DOG, CAT], text=SHOT, truncation=True, max_length=9)["input_ids"][0][-1] == IMAGE


def test_unknown_options_are_errors(processor):
    with pytest.raises(TypeError, match="padding_side"):
        processor(text="a", paddding=True)
    with pytest.raises(ValueError, match="labels"):
        processor(text="a", text_target="dog")


# Chats


def test_chat_of_images_and_texts(processor):
    shots = chat(DOG, "this is a dog.", CAT, "this is a")
    assert processor.apply_chat_template(shots) == SHOT
    batch = processor.apply_chat_template(shots, tokenize=True, return_dict=True, return_tensors="pt")
    expected = processor(images=[DOG, CAT], text=SHOT, return_tensors="pt")
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_few_shots_as_messages(processor):
    shots = [*chat(DOG, "what is it?"), {"role": "assistant", "content": "a dog."}, *chat(CAT, "what is it?")]
    assert processor.apply_chat_template(shots) == "<image> what is it? a dog.<image> what is it?"
    started = [*shots, {"role": "assistant", "content": "a"}]
    assert processor.apply_chat_template(started, continue_final_message=True).endswith("what is it? a")


# Saving


def test_processor_round_trip(tmp_path):
    folders = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    processor = CBViLAConditionalGenerationProcessor.from_vision_language_pretrained(*folders, num_image_tokens=3)
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(*folders, {"length": 3})
    assert processor.image_token_id == model.config.image_token_id
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert type(loaded) is CBViLAConditionalGenerationProcessor
    assert (loaded.num_image_tokens, loaded.image_token_id, loaded.tokenizer.padding_side) == (3, IMAGE, "left")
    assert loaded.chat_template == processor.chat_template
    given = {"images": [DOG, CAT], "text": SHOT, "return_tensors": "pt"}
    assert all(torch.equal(value, loaded(**given)[name]) for name, value in processor(**given).items())


# The pipeline


@pytest.fixture(scope="module")
def describe(processor):
    pipe = pipeline("image-text-to-text", model=reading_model(), processor=processor)
    pipe.model.generation_config.max_new_tokens = 4
    return pipe


def expected_text(describe, images, text):
    inputs = describe.processor(images=images, text=text, return_tensors="pt")
    new = describe.model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    return describe.processor.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_pipeline_with_prompts(describe, batch_size):
    expected = [expected_text(describe, [DOG, CAT], SHOT), expected_text(describe, [CAT], "<image> a")]
    options = {"return_full_text": False, "max_new_tokens": 4}
    assert [r["generated_text"].strip() for r in describe([DOG, CAT], [SHOT], **options)] == [expected[0].strip()]
    results = describe([[DOG, CAT], [CAT]], [SHOT, "<image> a"], batch_size=batch_size, **options)
    assert [result["generated_text"].strip() for result in results] == [text.strip() for text in expected]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_pipeline_with_chats(describe, batch_size):
    expected = expected_text(describe, [DOG, CAT], SHOT)
    shots = chat(DOG, "this is a dog.", CAT, "this is a")
    answer = describe(text=shots, max_new_tokens=4)[0]["generated_text"][-1]
    assert answer["role"] == "assistant" and answer["content"].strip() == expected.strip()
    chats = [shots, chat(CAT, "a")]
    results = describe(text=chats, max_new_tokens=4, return_full_text=False, batch_size=batch_size)
    texts = [expected, expected_text(describe, [CAT], "<image> a")]
    assert [result[0]["generated_text"].strip() for result in results] == [text.strip() for text in texts]


def test_pipeline_loads_a_saved_model(tmp_path):
    folders = save_vision_model(tmp_path / "vision"), save_language_model(tmp_path / "language")
    model = CBViLAForConditionalGeneration.from_vision_language_pretrained(*folders)
    processor = CBViLAConditionalGenerationProcessor.from_vision_language_pretrained(*folders)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    describe = pipeline("image-text-to-text", model=str(tmp_path / "saved"))
    assert type(describe.model) is CBViLAForConditionalGeneration
    ids = describe(DOG, "<image> a", max_new_tokens=4, return_tensors=True)[0]["generated_token_ids"]
    inputs = processor(images=DOG, text="<image> a", return_tensors="pt")
    assert torch.equal(ids, model.generate(**inputs, max_new_tokens=4)[0])
