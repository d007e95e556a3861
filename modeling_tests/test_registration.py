"""Importing the package registers CB-ViLA with the Auto classes and `pipeline()`; other models work as before."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from tiny_qformer import tiny_qformer_config
from tiny_vqa import VOCABULARY, picture, tiny_config, tiny_model, tiny_processor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    BlipConfig,
    Pipeline,
    pipeline,
    pipelines,
)

from transformers_cbvila import (
    CBViLAConfig,
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAForQFormerPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAFusionConfig,
    CBViLAFusionModel,
    CBViLAModel,
    CBViLAProcessor,
    CBViLAQFormerConfig,
    CBViLAQFormerModel,
    CBViLATextConfig,
    CBViLATextModel,
    CBViLAVisionConfig,
    CBViLAVisionModel,
    CBViLAVisualQuestionAnsweringPipeline,
    bundled_checkpoint,
    pipeline_dispatch,
)
from transformers_cbvila.registration import register

TASK = "visual-question-answering"
TASKS = (TASK, "vqa")
REGISTRY = pipelines.PIPELINE_REGISTRY


@pytest.fixture
def without_us():
    """Takes our wrappers off and puts them on again; for what transformers does without this package."""

    def take_off(monkeypatch):
        for place, name in (
            (pipelines, "get_task"),
            (pipelines, "_resolve_deprecated_task"),
            (REGISTRY, "check_task"),
        ):
            if hasattr(place, name):
                monkeypatch.setattr(place, name, getattr(place, name).without_cbvila)

    return take_off


def original_error(task, without_us, **kwargs):
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_us(monkeypatch)
        with pytest.raises(KeyError) as caught:
            pipeline(task, **kwargs)
    return str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cbvila")
    tiny_model().save_pretrained(path)
    tiny_processor(add_sep_token=False).save_pretrained(path)
    return str(path)


def tiny_bert(model_class=BertModel):
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    return model_class(config).eval()


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    tiny_bert(BertForSequenceClassification).save_pretrained(path)
    BertTokenizer(vocab=VOCABULARY).save_pretrained(path)
    return str(path)


# Auto classes


@pytest.mark.parametrize(
    "config", [CBViLAConfig, CBViLAVisionConfig, CBViLATextConfig, CBViLAFusionConfig, CBViLAQFormerConfig]
)
def test_auto_config_loads_every_config(config, tmp_path):
    config().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is config
    assert type(AutoConfig.for_model(config.model_type)) is config


@pytest.mark.parametrize(
    "auto_class, part, model_class",
    [
        (AutoModel, None, CBViLAModel),
        (AutoModel, "vision_config", CBViLAVisionModel),
        (AutoModel, "text_config", CBViLATextModel),
        (AutoModel, "multimodal_config", CBViLAFusionModel),
        (AutoModelForPreTraining, None, CBViLAForPreTraining),
        (AutoModelForVisualQuestionAnswering, None, CBViLAForQuestionAnswering),
    ],
)
def test_auto_models_build_every_model(auto_class, part, model_class):
    config = tiny_config() if part is None else getattr(tiny_config(), part)
    assert type(auto_class.from_config(config)) is model_class


def test_auto_models_build_the_qformer(tmp_path):
    config = tiny_qformer_config()
    assert type(AutoModel.from_config(config)) is CBViLAQFormerModel
    assert type(AutoModelForPreTraining.from_config(config)) is CBViLAForQFormerPreTraining
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is CBViLAForQFormerPreTraining
    assert type(AutoProcessor.from_pretrained(tmp_path)) is CBViLAProcessor


def test_auto_classes_load_a_folder(folder):
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), tiny_model().parameters(), strict=True))
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is CBViLAProcessor and processor.add_sep_token is False
    assert AutoImageProcessor.from_pretrained(folder, backend="pil").size["width"] == 32
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == VOCABULARY


def test_auto_tokenizer_of_a_folder_without_tokenizer_class(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    tiny_config().save_pretrained(tmp_path)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), BertTokenizer)


# The pipeline for CB-ViLA


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_of_folder_and_instance_is_ours(task, folder):
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    parts = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    for pipe in (
        pipeline(task, model=folder),
        pipeline(task, model=model, processor=processor),
        pipeline(task, model=model, processor=folder),
        pipeline(task, model=model, **parts),
        pipeline(task, model=folder, **parts),
    ):
        assert type(pipe) is CBViLAVisualQuestionAnsweringPipeline
        assert isinstance(pipe(picture(), "red", generate_kwargs={"max_new_tokens": 2})[0]["answer"], str)


def test_pipeline_passes_options_to_the_model(folder):
    pipe = pipeline("vqa", model=folder, dtype=torch.bfloat16, top_k=2, answers=["yes", "no", "red"])
    assert pipe.model.dtype == torch.bfloat16
    assert len(pipe(picture(), "red")) == 2


def test_pipeline_without_task_knows_our_folder(folder):
    assert type(pipeline(model=folder)) is CBViLAVisualQuestionAnsweringPipeline


def test_pipeline_without_task_rejects_other_folders(bert_folder, tmp_path):
    tiny_config().save_pretrained(tmp_path)  # says nothing of question answering
    for other in (bert_folder, str(tmp_path)):
        with pytest.raises(RuntimeError, match="task"):
            pipeline(model=other)


def test_pipeline_loads_peft_adapters(folder, tmp_path):
    peft = pytest.importorskip("peft")
    model = AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(tmp_path)
    pipe = pipeline("vqa", model=str(tmp_path), processor=folder)
    assert type(pipe) is CBViLAVisualQuestionAnsweringPipeline


# Other models and other tasks


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_gives_other_models_the_original_error(task, bert_folder, tmp_path, without_us):
    BlipConfig().save_pretrained(tmp_path)  # no weights: an attempt to load them would fail otherwise
    for other in ({"model": bert_folder}, {"model": str(tmp_path)}, {"model": tiny_bert()}, {}):
        expected = original_error(task, without_us, **other)
        with pytest.raises(KeyError) as caught:
            pipeline(task, **other)
        assert str(caught.value) == expected and task in expected


def test_pipeline_other_tasks_give_the_original_error(bert_folder, without_us):
    for task in ("question-answering", "translation_en_to_fr", "no-such-task"):
        expected = original_error(task, without_us, model=bert_folder)
        with pytest.raises(KeyError) as caught:
            pipeline(task, model=bert_folder)
        assert str(caught.value) == expected


def test_pipeline_other_tasks_work(bert_folder):
    classify = pipeline("text-classification", model=bert_folder)
    assert {"label", "score"} <= set(classify("is it red")[0])
    assert type(pipeline("sentiment-analysis", model=bert_folder)) is type(classify)
    assert type(pipeline("feature-extraction", model=bert_folder)).__name__ == "FeatureExtractionPipeline"


def test_registration_does_not_change_transformers_dictionaries():
    assert TASK not in REGISTRY.supported_tasks and "vqa" not in REGISTRY.task_aliases
    assert set(TASKS) <= set(getattr(pipelines, "REMOVED_TASKS", TASKS))  # the oldest transformers has no such list


def test_register_twice_changes_nothing(folder):
    check = REGISTRY.check_task.without_cbvila
    register()
    register()
    assert REGISTRY.check_task.without_cbvila is check and not hasattr(check, "without_cbvila")
    assert type(pipeline("vqa", model=folder)) is CBViLAVisualQuestionAnsweringPipeline


# Somebody else's pipeline under the same name


class Theirs(Pipeline):
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        self.given = {"args": args, **kwargs}
        super().__init__(*args, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        return {}, {}, {}

    def preprocess(self, input_):
        return self.tokenizer(input_, return_tensors="pt")

    def _forward(self, input_tensors):
        return self.model(**input_tensors)

    def postprocess(self, model_outputs):
        return "theirs"


@pytest.fixture
def theirs(monkeypatch):
    """Registers their pipeline as one has to: off the list of removed tasks, then on the registry."""
    monkeypatch.setattr(REGISTRY, "supported_tasks", dict(REGISTRY.supported_tasks))
    monkeypatch.setattr(REGISTRY, "task_aliases", {**REGISTRY.task_aliases, "vqa": TASK})
    if hasattr(pipelines, "REMOVED_TASKS"):
        rest = {task: hint for task, hint in pipelines.REMOVED_TASKS.items() if task not in TASKS}
        monkeypatch.setattr(pipelines, "REMOVED_TASKS", rest)
    REGISTRY.register_pipeline(TASK, Theirs, pt_model=AutoModel, default={"model": ("nobody/nothing", "main")})


def kinds(values):
    return {name: type(value) for name, value in values.items()}


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_of_transformers_serves_other_models(task, theirs, folder, bert_folder, without_us):
    instance = {"model": tiny_bert(), "tokenizer": BertTokenizer(vocab=VOCABULARY)}
    for other in ({"model": bert_folder}, {"model": bert_folder, "batch_size": 2}, instance):
        with pytest.MonkeyPatch.context() as monkeypatch:
            without_us(monkeypatch)
            expected = pipeline(task, **other)
        actual = pipeline(task, **other)
        assert type(actual) is Theirs and actual("is it red") == "theirs"
        assert type(actual.model) is BertModel and kinds(actual.given) == kinds(expected.given)


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_of_transformers_does_not_take_our_models(task, theirs, folder):
    assert type(pipeline(task, model=folder)) is CBViLAVisualQuestionAnsweringPipeline
    parts = {"tokenizer": tiny_processor().tokenizer, "image_processor": tiny_processor().image_processor}
    assert type(pipeline(task, model=tiny_model(), **parts)) is CBViLAVisualQuestionAnsweringPipeline


def test_pipeline_of_transformers_keeps_its_errors(theirs, tmp_path, without_us):
    tiny_bert().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("broken")
    for other in ({"model": str(tmp_path)}, {"model": tiny_bert()}):
        with pytest.MonkeyPatch.context() as monkeypatch:
            without_us(monkeypatch)
            with pytest.raises(Exception) as expected:
                pipeline("vqa", **other)
        with pytest.raises(expected.type) as caught:
            pipeline("vqa", **other)
        assert str(caught.value) == str(expected.value)


def test_pipeline_of_transformers_keeps_its_default_model(theirs, monkeypatch):
    asked = []

    def refuse(model, *args, **kwargs):
        asked.append(model)
        raise OSError("no network in tests")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(OSError):
        pipeline(TASK)
    assert "nobody/nothing" in asked


def test_pipeline_entry_of_transformers_is_unchanged(theirs):
    pipeline_dispatch.offer_pipeline()
    assert REGISTRY.supported_tasks[TASK]["impl"] is Theirs


def test_pipeline_entry_class_names_are_resolved(theirs, bert_folder, monkeypatch):
    # How transformers from 5.20 on names its classes; should the task come back, ours must not break it.
    entry = {"impl": f"{__name__}.Theirs", "pt": (AutoModel,), "type": "multimodal"}
    monkeypatch.setitem(REGISTRY.supported_tasks, TASK, entry)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert type(pipeline(TASK, model=bert_folder)).__name__ == "Theirs"


FRESH_PROCESS = """
from transformers import pipeline, pipelines
errors = {}
for task in ("visual-question-answering", "vqa"):
    for model in (None, BERT):
        try:
            pipeline(task, model=model)
        except KeyError as error:
            errors[task, model] = str(error)
import transformers_cbvila
for (task, model), expected in errors.items():
    try:
        pipeline(task, model=model)
    except KeyError as error:
        assert str(error) == expected, (str(error), expected)
assert len(errors) == 4
print(type(pipeline("vqa", model=OURS)).__name__)
"""


def test_pipeline_imported_before_the_package_in_a_process(folder, bert_folder):
    code = f"BERT, OURS = {bert_folder!r}, {folder!r}\n{FRESH_PROCESS}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["CBViLAVisualQuestionAnsweringPipeline"], done.stderr


# Zero-shot image classification, by transformers' own pipeline

LABELS = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def classify():
    return pipeline("zero-shot-image-classification", model=bundled_checkpoint("cbvila-tiny"))


def test_zero_shot_image_classification_equals_embeddings(classify):
    assert type(classify.model) is CBViLAForImageTextRetrieval
    folder = bundled_checkpoint("cbvila-tiny")
    assert type(AutoModelForZeroShotImageClassification.from_pretrained(folder)) is CBViLAForImageTextRetrieval
    image = Image.new("RGB", (64, 64), "blue")
    found = {entry["label"]: entry["score"] for entry in classify(image, candidate_labels=LABELS)}
    inputs = AutoProcessor.from_pretrained(folder)(
        images=[image] * 3, text=[f"This is a photo of {label}." for label in LABELS], return_tensors="pt"
    )
    output = AutoModel.from_pretrained(folder).eval()(**inputs)
    scores = output.logits_per_image[0].softmax(-1).tolist()
    assert found == pytest.approx(dict(zip(LABELS, scores, strict=True)), abs=1e-5)


def test_zero_shot_image_classification_of_plain_colours(classify):
    images = [Image.new("RGB", (64, 64), label) for label in LABELS]
    found = classify(images, candidate_labels=LABELS, hypothesis_template="a {} circle")
    assert [entries[0]["label"] for entries in found] == LABELS
    assert [sum(entry["score"] for entry in entries) for entries in found] == pytest.approx([1.0] * 3)
    for size in (2, 3):  # three images and three labels are as many
        batched = classify(images, candidate_labels=LABELS, hypothesis_template="a {} circle", batch_size=size)
        for entries, expected in zip(batched, found, strict=True):
            assert [e["label"] for e in entries] == [e["label"] for e in expected]
            assert [e["score"] for e in entries] == pytest.approx([e["score"] for e in expected], abs=1e-5)


@pytest.mark.parametrize("labels", [["red", "red"], ["blu\u00e9", "blue"], ["\u7ea2", "\u84dd"]])
def test_zero_shot_image_classification_rejects_equal_labels(classify, labels):
    with pytest.raises(ValueError, match="are the same tokens to this model"):
        classify(Image.new("RGB", (64, 64)), candidate_labels=labels)
