"""The pipeline on a tiny random model: input forms, scores against slow references, batching, saving, errors."""

import json
from collections import deque
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_vqa import NUM_POSITIONS, VOCABULARY, picture, tiny_model, tiny_processor
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    AutoImageProcessor,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor
from transformers_cbvila import CBViLAVisualQuestionAnsweringPipeline as VQAPipeline
from transformers_cbvila.model import pipeline_cbvila

CLS, SEP = VOCABULARY["[CLS]"], VOCABULARY["[SEP]"]
PICTURES = [picture(seed) for seed in range(4)]
QUESTIONS = ["what shape is in the image?", "red", "how many circles are there at the left?", "is it a teal triangle"]
PAIRS = [{"image": image, "question": question} for image, question in zip(PICTURES, QUESTIONS, strict=True)]
SHORT = {"max_new_tokens": 3}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def pipe(model):
    return VQAPipeline(model, processor=tiny_processor(), generate_kwargs=SHORT)


@pytest.fixture(scope="module")
def expected(pipe):
    """The answers to PAIRS, asked one by one."""
    answers = [pipe(pair) for pair in PAIRS]
    assert len({answer[0]["answer"] for answer in answers}) > 2, "a model that says one thing proves nothing"
    return answers


def assert_same(actual, expected):
    actual = list(actual)
    assert [[entry["answer"] for entry in answers] for answers in actual] == [
        [entry["answer"] for entry in answers] for answers in expected
    ]
    for ours, theirs in zip(actual, expected, strict=True):
        assert [e["score"] for e in ours] == pytest.approx([e["score"] for e in theirs], rel=1e-3)


# Forms of input


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


def test_pipeline_one_question(pipe):
    answers = pipe(PICTURES[0], QUESTIONS[0])
    assert isinstance(answers, list) and set(answers[0]) == {"score", "answer"}
    assert isinstance(answers[0]["score"], float) and isinstance(answers[0]["answer"], str)


@pytest.mark.parametrize(
    "ask",
    [
        lambda pipe: pipe(PICTURES[0], QUESTIONS[0]),
        lambda pipe: pipe(image=PICTURES[0], question=QUESTIONS[0]),
        lambda pipe: pipe({"image": PICTURES[0], "question": QUESTIONS[0]}),
        lambda pipe: pipe({"image": PICTURES[0], "question": QUESTIONS[0], "answer": "ignored"}),
        lambda pipe: pipe(np.asarray(PICTURES[0]), QUESTIONS[0]),
        lambda pipe: pipe(torch.from_numpy(np.array(PICTURES[0])), QUESTIONS[0]),
    ],
)
def test_pipeline_single_forms(pipe, expected, ask):
    assert_same([ask(pipe)], expected[:1])


def test_pipeline_image_paths(pipe, expected, tmp_path):
    path = tmp_path / "picture.png"
    PICTURES[0].save(path)
    assert_same([pipe(str(path), QUESTIONS[0]), pipe(path, QUESTIONS[0])], expected[:1] * 2)


def test_pipeline_image_url(pipe, expected, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    PICTURES[0].save(path)
    asked = []

    def urlopen(request, timeout):
        asked.append((request.full_url, timeout))
        return path.open("rb")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert_same([pipe("https://example.org/a.png", QUESTIONS[0], timeout=7)], expected[:1])
    assert asked == [("https://example.org/a.png", 7)]


@pytest.mark.parametrize(
    "ask, result_type",
    [
        (lambda pipe: pipe(PAIRS), list),
        (lambda pipe: pipe(tuple(PAIRS)), list),
        (lambda pipe: pipe(PICTURES, QUESTIONS), list),
        (lambda pipe: pipe(image=tuple(PICTURES), question=QUESTIONS), list),
        (lambda pipe: pipe(np.stack([np.asarray(image) for image in PICTURES]), QUESTIONS), list),
        (lambda pipe: pipe(Rows(PAIRS)), None),
        (lambda pipe: pipe(Stream()), None),
        (lambda pipe: pipe(pair for pair in PAIRS), None),
        (lambda pipe: pipe(iter(PAIRS)), None),
        (lambda pipe: pipe(KeyDataset(Rows(PAIRS), "image"), QUESTIONS), None),
        (lambda pipe: pipe(KeyDataset(Rows(PAIRS), "image"), KeyDataset(Rows(PAIRS), "question")), None),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_pipeline_forms_with_many(pipe, expected, ask, result_type, batch_size, monkeypatch):
    monkeypatch.setattr(pipe, "_batch_size", batch_size)
    result = ask(pipe)
    # Lists give lists; what may not fit into memory gives an iterator.
    assert isinstance(result, list) == (result_type is list)
    assert_same(result, expected)


def test_pipeline_hugging_face_dataset(pipe, expected):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    rows = datasets.Dataset.from_list(PAIRS, features=features)
    assert_same(pipe(rows), expected)
    assert_same(pipe(rows["image"], rows["question"]), expected)
    assert_same(pipe(rows.to_iterable_dataset()), expected)


def test_pipeline_one_question_about_many_images(pipe):
    expected = [pipe(image, QUESTIONS[0]) for image in PICTURES]
    for many in (PICTURES, (image for image in PICTURES), KeyDataset(Rows(PAIRS), "image")):
        assert_same(pipe(many, QUESTIONS[0]), expected)


def test_pipeline_many_questions_about_one_image(pipe):
    expected = [pipe(PICTURES[1], question) for question in QUESTIONS]
    assert_same(pipe(PICTURES[1], QUESTIONS), expected)
    assert_same(pipe(PICTURES[1], KeyDataset(Rows(PAIRS), "question")), expected)


def test_pipeline_of_nothing_is_empty(pipe):
    assert pipe([]) == [] and pipe([], QUESTIONS[0]) == []


def test_pipeline_reads_dataset_rows_lazily(pipe):
    read = []

    class Counting(Rows):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    answers = iter(pipe(Counting(PAIRS)))
    next(answers)
    assert read == [0]


def column(kind, values):
    """Values as a column of pandas, whose labels run backwards, or another thing that is no list."""
    if kind == "Series":
        return pd.Series(values, index=range(len(values))[::-1])
    if kind == "filtered":
        return pd.Series([None, *values, None])[1:-1]
    if kind == "objects":
        objects = np.empty(len(values), dtype=object)
        objects[:] = values
        return objects
    return {"deque": deque, "tuple": tuple, "Index": pd.Index, "map": lambda v: map(lambda x: x, v)}[kind](values)


@pytest.mark.parametrize("kind", ["Series", "filtered", "objects", "deque", "tuple", "map"])
def test_pipeline_reads_columns_by_position(pipe, expected, kind, tmp_path):
    assert_same(pipe(column(kind, PAIRS)), expected)
    one = [pipe(image, QUESTIONS[0]) for image in PICTURES]
    assert_same(pipe(column(kind, PICTURES), QUESTIONS[0]), one)
    paths = [str(tmp_path / f"{number}.png") for number in range(len(PICTURES))]
    for image, path in zip(PICTURES, paths, strict=True):
        image.save(path)
    assert_same(pipe(column(kind, paths), QUESTIONS[0]), one)
    if kind != "map":
        assert_same(pipe(column(kind, PICTURES), column(kind, QUESTIONS)), expected)
    assert_same(pipe(PICTURES[0], column(kind, QUESTIONS)), [pipe(PICTURES[0], q) for q in QUESTIONS])


def test_pipeline_takes_arrays_and_pandas_indices(pipe):
    expected = [pipe(PICTURES[0], question) for question in QUESTIONS]
    assert_same(pipe(PICTURES[0], np.array(QUESTIONS)), expected)
    assert_same(pipe(PICTURES[0], column("Index", QUESTIONS)), expected)
    assert isinstance(pipe(PICTURES[0], column("Series", QUESTIONS)), list)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((pd.DataFrame(PAIRS),), "a table .*to_dict"),
        ((pd.DataFrame(PAIRS), "red"), "image is a table .*one of its columns"),
        ((set(QUESTIONS), "red"), "image is a set, which has no order"),
        ((PICTURES[0], frozenset(QUESTIONS)), "question is a frozenset"),
        (({"train": PICTURES},), "no 'image' among the keys"),
        (([[PICTURES[0], PICTURES[1]], [PICTURES[2]]], "red"), "image of pair 0 holds several items"),
        (([PICTURES[0], np.stack([PICTURES[1]] * 2)], "red"), r"image of pair 1 .* shape \(2, .*in one list"),
        ((Rows(PICTURES),), "pair 0: expected .* got a value of type Image"),
    ],
)
def test_pipeline_rejects_other_lists(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        list(pipe(*arguments))


# Bad pairs among many


class Broken(Rows):
    """The third row cannot be decoded."""

    def __getitem__(self, index):
        if index == 2:
            raise OSError("image file is truncated")
        return super().__getitem__(index)


def broken_stream():
    yield from PAIRS[:2]
    raise SyntaxError("broken PNG file")


def cut_picture():
    image = Image.open(BytesIO(png(PICTURES[2])[:-40]))
    assert image.size == PICTURES[2].size
    return image


def png(image):
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("with_workers", [0, 1])
def test_pipeline_names_a_bad_pair(pipe, batch_size, with_workers):
    def bad(pair, lazily=False):
        pairs = [*PAIRS[:2], pair, PAIRS[3]]
        return list(pipe(Rows(pairs) if lazily else pairs, batch_size=batch_size, num_workers=with_workers))

    for lazily in (False, True):
        with pytest.raises(ValueError, match=r"pair 2 has no image \(None\)"):
            bad({"image": None, "question": "red"}, lazily)
        with pytest.raises(ValueError, match="pair 2: .*truncated or damaged"):
            bad({"image": cut_picture(), "question": "red"}, lazily)
    with pytest.raises(ValueError, match="pair 2: the question 'red red"):
        bad({"image": PICTURES[0], "question": "red " * 99})
    with pytest.raises(ValueError, match="pair 2: the question is empty"):
        bad({"image": PICTURES[0], "question": " "})
    with pytest.raises(FileNotFoundError, match="pair 2: there is no image file at 'nowhere.png'"):
        bad({"image": "nowhere.png", "question": "red"})


def test_pipeline_names_unreadable_rows(pipe):
    with pytest.raises(ValueError, match=r"pair 2 cannot be read \(OSError: image file is truncated\)"):
        list(pipe(Broken(PAIRS), batch_size=2))
    with pytest.raises(ValueError, match=r"pair 2 cannot be read \(SyntaxError: broken PNG file\)"):
        list(pipe(broken_stream(), batch_size=2))


def test_pipeline_error_messages_are_short(pipe):
    for arguments in (
        ("x" * 400_000, "red"),
        ("data:image/png;base64," + "A" * 400_000, "red"),
        ("x" * 400_000,),
        ({"x" * 400_000: 1},),
        (PICTURES[0], "red " * 100_000),
        (PICTURES[0], " " * 400_000),
        (["x" * 400_000] * 3,),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            pipe(*arguments)
        assert len(str(caught.value)) < 800
    with pytest.raises(ValueError) as caught:
        pipe(PICTURES[0], "red", answers="x" * 400_000)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": [" " * 400_000]},
        {"text": ["red"], "text_kwargs": {"padding": "x" * 400_000}, "padding": True},
        {"text": ["red"], **{f"option_{number}": 1 for number in range(10_000)}},
        {"text": ["red"] * 3000, "images": [[PICTURES[0]]] * 2999},
        {"images": "x" * 400_000},
    ],
)
def test_processor_error_messages_are_short(arguments):
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        tiny_processor()(**arguments)
    assert len(str(caught.value)) < 800


def test_pipeline_warns_of_unknown_questions(pipe):
    with pytest.warns(UserWarning, match="knows nothing of 1 of 2 questions, e.g. '圆圈是什么颜色'"):
        pipe(PICTURES[0], ["red", "圆圈是什么颜色"], batch_size=2)


# A picture is encoded once


@pytest.fixture
def encoded(model, monkeypatch):
    """How many images the model encodes, call by call."""
    counts = []
    vision = model.cbvila.vision_model
    forward = vision.forward
    monkeypatch.setattr(
        vision, "forward", lambda pixels, *args, **k: counts.append(len(pixels)) or forward(pixels, *args, **k)
    )
    return counts


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"answers": ["yes", "red circle", "no"]}])
def test_pipeline_encodes_a_shared_picture_once(pipe, encoded, options, tmp_path):
    pairs = [{"image": PICTURES[i % 2], "question": question} for i, question in enumerate(QUESTIONS * 2)]
    alone = [pipe(pair, **options) for pair in pairs]
    encoded.clear()
    assert_same(pipe(pairs, batch_size=8, **options), alone)
    assert encoded == [2]
    for number in (0, 1):
        PICTURES[number].save(tmp_path / f"{number}.png")
    copies = [{**pair, "image": pair["image"].copy()} for pair in pairs]
    paths = [{**pair, "image": str(tmp_path / f"{i % 2}.png")} for i, pair in enumerate(pairs)]
    opened = [{**pair, "image": tmp_path / f"{i % 2}.png"} for i, pair in enumerate(pairs)]
    for same in (copies, paths, opened, Rows(copies), (pair for pair in copies)):
        encoded.clear()
        assert_same(pipe(same, batch_size=8, **options), alone)
        assert encoded == [2]


def test_pipeline_reads_a_shared_path_once(pipe, tmp_path, monkeypatch):
    path, read = tmp_path / "a.png", []
    PICTURES[0].save(path)
    load = pipeline_cbvila.load_image
    monkeypatch.setattr(pipeline_cbvila, "load_image", lambda *args: read.append(args[0]) or load(*args))
    pipe(str(path), QUESTIONS, batch_size=4)
    assert read == [str(path)]


# Scores


def token_probabilities(model, image, question, tokens, processor=None):
    """Probability of each next token after `tokens`, without cache, batch or padding."""
    encoded = (processor or tiny_processor())(image, question, return_tensors="pt")
    with torch.no_grad():
        state = model.encode_question(**encoded)
        logits = model.answer_decoder(
            torch.tensor([[CLS, *tokens]]),
            encoder_hidden_states=state,
            encoder_attention_mask=encoded["attention_mask"],
        ).logits
    return logits[0, -1].softmax(-1)


def probability_of(model, image, question, tokens):
    total = 1.0
    for index, token in enumerate(tokens):
        total *= float(token_probabilities(model, image, question, tokens[:index])[token])
        if token == SEP:
            break
    return total


@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_pipeline_greedy_score_is_the_probability(model, pipe, index):
    image, question = PICTURES[index], QUESTIONS[index]
    tokens, score = [], 1.0
    while len(tokens) < 3 and SEP not in tokens:
        probabilities = token_probabilities(model, image, question, tokens)
        tokens.append(int(probabilities.argmax()))
        score *= float(probabilities.max())
    answer = tiny_processor().decode_answers([[CLS, *tokens]])[0]
    assert_same([pipe(image, question)], [[{"score": score, "answer": answer}]])


def test_pipeline_score_ignores_logits_processors(model, pipe):
    image, question = PICTURES[2], QUESTIONS[2]
    options = {"max_new_tokens": 4, "repetition_penalty": 3.0, "suppress_tokens": [SEP]}
    encoded = tiny_processor()(image, question, return_tensors="pt")
    tokens = model.generate(**encoded, **options)[0, 1:].tolist()
    score = pipe(image, question, generate_kwargs=options)[0]["score"]
    assert score == pytest.approx(probability_of(model, image, question, tokens), rel=1e-3)


# In the last two, transformers' default length penalty would choose other answers.
@pytest.mark.parametrize("index, top_k", [(0, 4), (2, 2), (3, 4)])
def test_pipeline_wide_beams_find_the_most_probable_answers(model, pipe, index, top_k):
    image, question = PICTURES[index], QUESTIONS[index]
    first = token_probabilities(model, image, question, [])
    every = {(SEP,): float(first[SEP])}
    for token in set(range(len(VOCABULARY))) - {SEP}:
        second = token_probabilities(model, image, question, [token])
        every |= {(token, last): float(first[token] * p) for last, p in enumerate(second)}
    best = sorted(every.values(), reverse=True)[:top_k]
    options = {"max_new_tokens": 2, "num_beams": len(VOCABULARY)}
    answers = pipe(image, question, top_k=top_k, generate_kwargs=options)
    assert [answer["score"] for answer in answers] == pytest.approx(best, rel=1e-3)


def test_pipeline_refuses_to_generate_what_it_ranks(pipe):
    options = {"answers": ["red", "teal"], "generate_kwargs": {"max_new_tokens": 3}}
    with pytest.raises(ValueError, match="generate_kwargs=.* changes nothing: answers are ranked, none is generated"):
        pipe(PICTURES[0], "red", **options)


def test_pipeline_top_k_generated_answers(pipe):
    answers = pipe(PICTURES[0], QUESTIONS[0], top_k=3)
    scores = [answer["score"] for answer in answers]
    assert len(answers) == 3 and scores == sorted(scores, reverse=True)
    assert len({answer["answer"] for answer in answers}) == 3


def test_pipeline_ranks_answers(model, pipe):
    image, question, answers = PICTURES[0], QUESTIONS[0], ["red circle", "yes", "no", "two", "three", "blue square"]
    processor = tiny_processor()
    likelihoods = [
        probability_of(model, image, question, row[row != -100].tolist())
        for row in processor.encode_answers(answers)["labels"]
    ]
    shares = {answer: p / sum(likelihoods) for answer, p in zip(answers, likelihoods, strict=True)}
    order = sorted(answers, key=shares.get, reverse=True)
    expected = [{"score": shares[answer], "answer": answer} for answer in order]
    assert_same([pipe(image, question, answers=answers)], [expected[:5]])
    assert_same([pipe(image, question, answers=tuple(answers), top_k=2)], [expected[:2]])
    assert_same([pipe(image, question, answers=answers, top_k=100)], [expected])


def test_pipeline_encodes_candidates_once_per_call(pipe, monkeypatch):
    calls = []
    encode = CBViLAProcessor.encode_answers
    monkeypatch.setattr(CBViLAProcessor, "encode_answers", lambda *args: calls.append(1) or encode(*args))
    pipe(PAIRS, answers=["yes", "no"])
    assert len(calls) == 1


def test_pipeline_options_of_init_hold_for_calls(model):
    pipe = VQAPipeline(model, processor=tiny_processor(), answers=["yes", "no", "red"], top_k=2, batch_size=2)
    assert [len(answers) for answers in pipe(PAIRS)] == [2] * 4
    assert len(pipe(PAIRS[0], top_k=1)) == 1


# Batches


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"answers": ["yes", "red circle", "no"]}])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_pipeline_batch_size_does_not_change_answers(model, options, padding_side):
    tokenizer = BertTokenizer(vocab=VOCABULARY, padding_side=padding_side)
    pipe = VQAPipeline(model, tokenizer=tokenizer, image_processor=tiny_processor().image_processor)
    pipe_options = options if "answers" in options else {"generate_kwargs": SHORT, **options}
    alone = [pipe(pair, **pipe_options) for pair in PAIRS]
    for batch_size in (2, 3, 8):
        assert_same(pipe(PAIRS, batch_size=batch_size, **pipe_options), alone)
    assert tokenizer.padding_side == padding_side


# Construction, saving and loading


def test_pipeline_processor_from_parts(model, pipe, expected):
    processor = tiny_processor()
    parts = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    assert_same(VQAPipeline(model, **parts, generate_kwargs=SHORT)(PAIRS), expected)


def test_pipeline_given_tokenizer_replaces_that_of_the_processor(model):
    tokenizer = BertTokenizer(vocab=VOCABULARY, model_max_length=5)
    pipe = VQAPipeline(model, processor=tiny_processor(add_sep_token=False), tokenizer=tokenizer)
    assert pipe.processor.tokenizer.model_max_length == 5 and pipe.processor.add_sep_token is False


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    VQAPipeline(pipe.model, processor=tiny_processor(add_sep_token=False)).save_pretrained(path)
    return path


def test_saved_pipeline_loads_without_remote_code(folder, model):
    assert not list(folder.glob("*.py"))
    assert "custom_pipelines" not in json.loads((folder / "config.json").read_text())
    saved = VQAPipeline(model, processor=tiny_processor(add_sep_token=False), generate_kwargs=SHORT)
    for task in ("visual-question-answering", "vqa"):
        # With its own image processor: where torchvision is, a folder loads that one, which differs by rounding.
        loaded = pipeline(
            task, model=str(folder), image_processor=tiny_processor().image_processor, generate_kwargs=SHORT
        )
        assert isinstance(loaded, VQAPipeline) and loaded.task == task
        assert loaded.processor.add_sep_token is False
        assert_same(loaded(PAIRS, batch_size=4), saved(PAIRS))


def test_saved_pipeline_has_no_code_if_the_class_is_registered(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(PIPELINE_REGISTRY, "supported_tasks", dict(PIPELINE_REGISTRY.supported_tasks))
    monkeypatch.setattr(VQAPipeline, "_registered_impl", None, raising=False)
    PIPELINE_REGISTRY.register_pipeline("my-vqa", VQAPipeline, pt_model=AutoModelForVisualQuestionAnswering)
    pipe.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert isinstance(pipeline("vqa", model=str(tmp_path)), VQAPipeline)


def test_saved_pipeline_loads_through_auto_classes(folder, model):
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    assert type(loaded) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert AutoProcessor.from_pretrained(folder).add_sep_token is False
    assert len(AutoTokenizer.from_pretrained(folder)) == len(VOCABULARY)
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == 32


def test_pipeline_parts_by_checkpoint_name(model, folder):
    pipe = VQAPipeline(model, processor=str(folder))
    assert pipe.processor.add_sep_token is False
    pipe = pipeline("vqa", model=model, tokenizer=str(folder), image_processor=str(folder))
    assert len(pipe.tokenizer) == len(VOCABULARY)


def test_pipeline_given_processor_wins_over_the_folder(folder):
    pipe = pipeline("vqa", model=str(folder), processor=tiny_processor(model_max_length=9))
    assert pipe.processor.tokenizer.model_max_length == 9 and pipe.processor.add_sep_token is True


# Bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "there is no image"),
        ({"question": "red"}, "there is no image"),
        ({"image": "a.png"}, "no question about the image 'a.png'"),
        ({"image": PICTURES[0]}, "no question about the image"),
        ({"image": PICTURES[:2], "question": ["red"] * 3}, r"2 image\(s\) and 3 question\(s\)"),
        ({"image": PICTURES[:1], "question": ["red"] * 3}, r"1 image\(s\) and 3 question\(s\)"),
        ({"image": KeyDataset(Rows(PAIRS), "image"), "question": ["red"]}, r"4 image\(s\) and 1 question\(s\)"),
        ({"image": iter(PICTURES), "question": ["red"]}, "take one question"),
        ({"image": PAIRS[0], "question": "red"}, "question='red' and a dictionary"),
        ({"image": {"image": PICTURES[0]}}, r"no 'question' among the keys \['image'\]"),
        ({"image": {"image": None, "question": "red"}}, r"the pair has no image \(None\)"),
        ({"image": ["a.png", "b.png"]}, "'a.png'; or pass the questions"),
        ({"image": PICTURES[0], "question": ""}, "question is empty: ''"),
        ({"image": PICTURES[0], "question": " \n"}, "question is empty"),
        ({"image": PICTURES[0], "question": 5}, "must be a string, got a value of type int"),
        ({"image": PICTURES[0], "question": "red " * 15}, f"'red red .* has 17 tokens .* limit is {NUM_POSITIONS}"),
        ({"image": object(), "question": "red"}, "an image must be"),
        ({"image": PICTURES[0], "question": "red", "answers": []}, "answers is an empty list"),
        ({"image": PICTURES[0], "question": "red", "answers": "yes"}, "answers must be a list of strings, got 'yes'"),
        ({"image": PICTURES[0], "question": "red", "answers": ["yes", 1]}, "item 1 is of type int"),
        ({"image": PICTURES[0], "question": "red", "answers": ["yes", " "]}, "answer 1 is empty"),
        ({"image": PICTURES[0], "question": "red", "answers": ["no " * 16]}, "17 tokens .* limit is 16"),
        ({"image": PICTURES[0], "question": "red", "top_k": 0}, "top_k .* got 0"),
        ({"image": PICTURES[0], "question": "red", "top_k": 1.5}, "top_k .* got 1.5"),
        ({"image": PICTURES[0], "question": "red", "top_k": True}, "top_k .* got True"),
        ({"image": PICTURES[0], "question": "red", "generate_kwargs": {"max_new_tokens": 17}}, "at most .*=16"),
        ({"image": PICTURES[0], "question": "red", "generate_kwargs": {"max_length": 18}}, "at most max_length=17"),
        ({"image": PICTURES[0], "question": "red", "generate_kwargs": {"num_return_sequences": 2}}, "pass top_k"),
    ],
)
def test_pipeline_rejects_bad_input(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_pipeline_rejects_missing_file(pipe):
    with pytest.raises(FileNotFoundError, match="'nowhere.png'"):
        pipe("nowhere.png", "red")


def test_pipeline_rejects_unreadable_image(pipe, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match="broken.png"):
        pipe(str(path), "red")


def test_pipeline_rejects_unknown_option(pipe):
    with pytest.raises(TypeError, match="topk"):
        pipe(PICTURES[0], "red", topk=1)


def test_pipeline_truncation_cuts_long_questions(pipe):
    words = ["red"] * 20
    cut = " ".join(words[: NUM_POSITIONS - 2])
    assert_same([pipe(PICTURES[0], " ".join(words), truncation=True)], [pipe(PICTURES[0], cut)])


def test_pipeline_longest_answer_fits_the_positions(model):
    pipe = VQAPipeline(model, processor=tiny_processor(), generate_kwargs={"suppress_tokens": [SEP]})
    assert len(pipe(PICTURES[0], "red")[0]["answer"].split()) <= NUM_POSITIONS
    longest = {"max_length": NUM_POSITIONS + 1, "suppress_tokens": [SEP]}
    assert_same([pipe(PICTURES[0], "red", generate_kwargs=longest)], [pipe(PICTURES[0], "red")])


def test_pipeline_rejects_other_models():
    with pytest.raises(ValueError, match="CBViLAForPreTraining cannot answer"):
        VQAPipeline(CBViLAForPreTraining(tiny_model().config), processor=tiny_processor())


def test_pipeline_needs_a_processor(model, tmp_path):
    with pytest.raises(ValueError, match="there is no processor"):
        VQAPipeline(model)
    with pytest.raises(ValueError, match="there is no processor"):
        VQAPipeline(model, tokenizer=tiny_processor().tokenizer)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"loaded from '{Path(tmp_path)}'"):
        pipeline("vqa", model=str(tmp_path))


def test_pipeline_rejects_tokenizer_of_another_model(model):
    image_processor = tiny_processor().image_processor
    larger = BertTokenizer(vocab={**VOCABULARY, "orange": len(VOCABULARY)})
    with pytest.raises(ValueError, match=f"has {len(VOCABULARY) + 1} tokens"):
        VQAPipeline(model, tokenizer=larger, image_processor=image_processor)
    words = ["[PAD]", "[UNK]", "red", "[CLS]", "[SEP]", "[MASK]"]
    other = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    with pytest.raises(ValueError, match="tokens 3 and 4, but the model's answers start with 2 and end with 3"):
        VQAPipeline(model, tokenizer=other, image_processor=image_processor)


def test_pipeline_answers_may_be_a_column(pipe):
    listed = ["red", "circle", "teal"]
    column = pd.Series(listed, index=[2, 0, 1])
    assert pipe(PICTURES[0], "red", answers=column) == pipe(PICTURES[0], "red", answers=listed)
    with pytest.raises(ValueError, match="answers is a set, which has no order"):
        pipe(PICTURES[0], "red", answers=set(listed))


@pytest.mark.parametrize(
    "options, name",
    [({"top_k": 10**9}, "top_k"), ({"generate_kwargs": {"num_beams": 10**9}}, "generate_kwargs: num_beams")],
)
def test_pipeline_rejects_more_beams_than_tokens(options, name, pipe):
    with pytest.raises(ValueError, match=f"{name}=1,000,000,000 is more than the .* tokens of the vocabulary"):
        pipe(PICTURES[0], "red", **options)
    assert len(pipe(PICTURES[0], "red", answers=["red", "teal"], top_k=10**9)) == 2
