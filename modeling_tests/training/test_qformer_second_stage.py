"""Both stages of a Q-Former by the commands' jobs: a language model reads what the first stage has learned."""

import json

import pytest
import torch
from tiny_language import save_language_model
from tiny_trainer import training_arguments

from transformers_cbvila import CBViLAForConditionalGeneration, CBViLAForQFormerPreTraining
from transformers_cbvila.tasks.captioning import Captioning
from transformers_cbvila.training.finetune import FinetuningJob, finetune
from transformers_cbvila.training.pretrain import PretrainingJob, pretrain


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def stage_1(pretrained, data, tmp_path_factory):
    job = PretrainingJob(
        train_data=[data], head="qformer", model=str(pretrained), model_config={"num_query_tokens": 3}, max_length=8
    )
    return str(pretrain(job, training_arguments(tmp_path_factory.mktemp("stage-1"), max_steps=2)))


def captioned(pretrained, data, folder, steps=2, **options):
    task = Captioning(freeze_vision_tower=True, **options)
    arguments = training_arguments(folder, max_steps=steps, per_device_train_batch_size=4)
    return finetune(task, FinetuningJob(str(pretrained), [data]), arguments)


def test_language_model_reads_the_queries_of_stage_1(pretrained, data, language, stage_1, tmp_path):
    folder = captioned(pretrained, data, tmp_path / "run", language_model=language, projector_start=stage_1)
    first = CBViLAForQFormerPreTraining.from_pretrained(stage_1)
    second = CBViLAForConditionalGeneration.from_pretrained(folder)
    assert second.config.num_image_tokens == 3 and second.config.projector_config.type == "qformer"
    before = first.qformer.state_dict()
    after = second.model.multi_modal_projector.qformer.state_dict()
    distances = {name: (value - before[name]).abs().max().item() for name, value in after.items()}
    assert 0 < max(distances.values()) < 0.02  # two steps of 1e-3 away from where stage 1 ended
    for name, value in second.model.vision_tower.state_dict().items():
        assert torch.equal(value, first.vision_model.state_dict()[name]), name
    record = (folder / "finetuning.json").read_text()
    assert stage_1 not in record and json.loads(record)["settings"]["projector_start"] == stage_1.rpartition("/")[2]


def test_start_of_a_model_that_has_a_projector_is_refused(pretrained, data, language, stage_1, tmp_path):
    folder = captioned(pretrained, data, tmp_path / "run", steps=1, language_model=language)
    with pytest.raises(ValueError, match="has a projector already"):
        captioned(folder, data, tmp_path / "again", projector_start=stage_1)
