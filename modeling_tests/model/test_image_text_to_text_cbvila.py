"""`pipeline("image-text-to-text")` and its Auto class ask the question answering head."""

import pytest
import torch
from PIL import Image, ImageDraw
from tiny_vqa import VOCABULARY, picture, tiny_model, tiny_processor
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from transformers_cbvila import CBViLAForQuestionAnswering, bundled_checkpoint

TASK = "image-text-to-text"
SHAPE, COLOR = "what shape is in the image?", "what color is the shape?"


@pytest.fixture(scope="module")
def ask():
    return pipeline(TASK, model=bundled_checkpoint("cbvila-tiny-easyvqa"))


@pytest.fixture(scope="module")
def circle():
    return drawing("ellipse", "red")


@pytest.fixture(scope="module")
def rectangle():
    return drawing("rectangle", "blue")


def drawing(shape, color):
    image = Image.new("RGB", (64, 64), "white")
    getattr(ImageDraw.Draw(image), shape)((16, 16, 46, 46), fill=color)
    return image


def chat(image, question):
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def new_texts(results):
    return [result["generated_text"] for result in results]


def test_auto_class_loads_the_question_answering_head():
    folder = bundled_checkpoint("cbvila-tiny-easyvqa")
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is CBViLAForQuestionAnswering


def test_single_question(ask, circle):
    assert new_texts(ask(circle, SHAPE, return_full_text=False)) == ["circle"]
    assert new_texts(ask(circle, SHAPE)) == [f"{SHAPE}circle"]


def test_questions_in_a_batch(ask, circle, rectangle):
    results = ask([circle, rectangle], [SHAPE, COLOR], return_full_text=False)
    assert new_texts(results) == ["circle", "blue"]


def test_beams_and_length_are_passed_on(ask, circle):
    results = ask(circle, SHAPE, return_full_text=False, generate_kwargs={"num_beams": 3})
    assert new_texts(results) == ["circle"]
    cut = ask(circle, SHAPE, max_new_tokens=1, return_tensors=True)[0]["generated_token_ids"]
    assert cut.shape == (2,)  # with [CLS]


def test_chat(ask, circle):
    answer = ask(text=chat(circle, SHAPE))[0]["generated_text"][-1]
    assert answer == {"role": "assistant", "content": "circle"}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_several_chats(ask, circle, rectangle, batch_size):
    chats = [chat(circle, SHAPE), chat(rectangle, COLOR)]
    results = ask(text=chats, return_full_text=False, batch_size=batch_size)
    assert [new_texts(result) for result in results] == [["circle"], ["blue"]]


def test_chat_asks_the_last_question_of_the_user(ask, circle):
    turns = [{"role": "system", "content": "Be brief."}, *chat(circle, SHAPE)]
    turns += [{"role": "assistant", "content": "circle"}, {"role": "user", "content": "what color is it?"}]
    assert new_texts(ask(text=turns, return_full_text=False)) == ["red"]


def test_default_length_of_pipelines_is_cut_to_the_positions():
    model = tiny_model()
    with torch.no_grad():
        model.answer_decoder.lm_head.decoder.bias[VOCABULARY["[SEP]"]] = -100.0
    endless = pipeline(TASK, model=model, processor=tiny_processor())
    written = endless(picture(), "red", return_tensors=True)[0]["generated_token_ids"]
    assert len(written) == 1 + model.config.text_config.max_position_embeddings


def test_own_chat_template_is_saved(tmp_path):
    processor = tiny_processor()
    assert "last" in processor.chat_template
    processor.chat_template = "{{ messages[0].content }}"
    processor.save_pretrained(tmp_path)
    tiny_model().save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).chat_template == "{{ messages[0].content }}"
