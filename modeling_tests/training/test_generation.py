"""A frozen language model learns to answer questions about images: the collator, its examples, and the task."""

import json

import pytest
from tiny import noise_image
from tiny_language import BOS, EOS, IMAGE, PAD, reading_model, reading_processor, save_language_model
from tiny_trainer import training_arguments
from tokenizers.processors import TemplateProcessing

from transformers_cbvila import CBViLATrainer
from transformers_cbvila.data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration
from transformers_cbvila.data.questions import AskedImages
from transformers_cbvila.tasks.evaluate import EvaluationJob, evaluate_task
from transformers_cbvila.tasks.generation import Generation
from transformers_cbvila.tasks.text_writing import Prompt, write_texts
from transformers_cbvila.training.finetune import FinetuningJob, finetune

DOG, CAT = noise_image(seed=1), noise_image(seed=2)
WHAT, IS, IT, RED, MARK = 18, 5, 19, 9, 20


@pytest.fixture
def collate():
    return CBViLADataCollatorForConditionalGeneration(reading_processor())


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_are_the_answer_and_its_end(collate, side):
    collate.processor.tokenizer.padding_side = side
    examples = [{"image": DOG, "prompt": "what is it?", "text": "red"}, {"image": CAT, "text": "red"}]
    batch = collate(examples)
    asked = [IMAGE, IMAGE, WHAT, IS, IT, MARK, RED, EOS]
    padding = [PAD] * 4
    short = [IMAGE, IMAGE, RED, EOS]
    assert batch["input_ids"].tolist() == [asked, padding + short if side == "left" else short + padding]
    nothing = [-100] * 4
    only_text = [-100, -100, RED, EOS]
    expected = nothing + only_text if side == "left" else only_text + nothing
    assert batch["labels"].tolist() == [[-100] * 6 + [RED, EOS], expected]


@pytest.mark.parametrize("template", ["<bos> $A", "$A <eos>", "<bos> $A <eos>"])
def test_tokens_that_the_tokenizer_adds(collate, template):
    collate.processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    (ids,), (labels,) = map(collate([{"image": DOG, "prompt": "what?", "text": "red"}]).get, ("input_ids", "labels"))
    assert labels[ids.tolist().index(RED) :].tolist() == ids[ids.tolist().index(RED) :].tolist()
    assert (labels[: ids.tolist().index(RED)] == -100).all()


def test_every_question_is_an_example():
    rows = [
        {"image": DOG, "question": ["what?", "is it red?"], "answer": [["dog", "cat", "dog"], ["no"]]},
        {"image": CAT, "question": ["what?"], "answer": [["cat"]]},
    ]
    examples = AskedImages(rows, [2, 1])
    found = [(example["prompt"], example["text"]) for example in map(examples.__getitem__, range(len(examples)))]
    assert found == [("what?", "dog"), ("is it red?", "no"), ("what?", "cat")]
    assert examples[2]["image"].tobytes() == CAT.tobytes() != examples[0]["image"].tobytes()
    with pytest.raises(IndexError, match="3 is no example; there are 3"):
        examples[3]


def test_answers_follow_image_and_question(tmp_path):
    questions = {"what is it?": ("dog", "cat"), "is it red?": ("red", "blue")}
    examples = [
        {"image": image, "prompt": question, "text": answers[number]}
        for number, image in enumerate((DOG, CAT))
        for question, answers in questions.items()
    ]
    model, processor = reading_model(projector={"length": 4}), reading_processor(num_image_tokens=4)
    collate = CBViLADataCollatorForConditionalGeneration(processor)
    arguments = training_arguments(tmp_path, max_steps=150, learning_rate=3e-3, per_device_train_batch_size=4)
    CBViLATrainer(model=model, args=arguments, train_dataset=examples, data_collator=collate).train()
    prompts = [Prompt([one["image"]], collate.prompt(one["prompt"])) for one in examples]
    written = write_texts(model, processor, prompts, len(prompts), 3, 4, progress=False)
    assert written == [one["text"] for one in examples]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("language"))


def test_finetune_and_evaluate(pretrained, data, language, tmp_path):
    arguments = training_arguments(tmp_path / "run", max_steps=2, per_device_train_batch_size=4)
    task = Generation(language_model=language, max_new_tokens=3, projector_option=["length=3"])
    folder = finetune(task, FinetuningJob(pretrained, [data], eval_data=[data]), arguments)
    record = json.loads((folder / "finetuning.json").read_text())
    assert record["task"] == "generation" and language not in json.dumps(record)
    job = EvaluationJob(
        str(folder), [data], str(tmp_path / "a.json"), train_data=[data], predictions=str(tmp_path / "p.jsonl")
    )
    figures = evaluate_task(Generation(max_new_tokens=3), job, progress=False)
    assert figures["rows"] == 8 and figures["metric"] == "any_of"
    assert figures["accuracy"] == pytest.approx(record["figures"]["eval_accuracy"])
    assert figures["accuracy_text_only_floor"] == 1.0, "each row has a no"
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == 8 and lines[0]["question"] == "is it red ?"


def test_scenes_have_questions_for_it(pretrained, language, tmp_path):
    arguments = training_arguments(tmp_path / "run", max_steps=1, per_device_train_batch_size=2)
    task = Generation(language_model=language, max_new_tokens=2)
    job = FinetuningJob(pretrained, ["scenes[rows=4]"], eval_data=["scenes[rows=4]"], eval_split="test")
    record = json.loads((finetune(task, job, arguments) / "finetuning.json").read_text())
    assert record["figures"]["eval_images"] == 4 < record["figures"]["eval_rows"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"language_model": None}, "generation trains a model to be read by a language model: name a causal"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"answer_column": "reply"}, "reply"),
    ],
)
def test_options_that_cannot_be(pretrained, data, language, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        task = Generation(**{"language_model": language, **options})
        finetune(task, FinetuningJob(pretrained, [data]), training_arguments(tmp_path, max_steps=1))
