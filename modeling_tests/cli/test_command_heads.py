"""Which checkpoints commands take: a head that a checkpoint lacks would be made at random."""

import json

import pytest
import torch
from tiny import tiny_processor, tiny_rows
from tiny_heads import build_head

import transformers_cbvila
from transformers_cbvila import CBViLAForMaskedImageModeling, CBViLAModel
from transformers_cbvila.cli import main
from transformers_cbvila.cli.checkpoints import USES, load_pretrained, usable_source

VQA, PRETRAINED = "cbvila-scenes-vqa", "cbvila-tiny"


@pytest.mark.parametrize(
    ("argv", "model", "head"),
    [
        (["draw", VQA, "a red circle", "--output", "OUT/x.png"], VQA, "CBViLAForPreTraining"),
        (["inspect", VQA, "--data", "scenes"], VQA, "CBViLAForPreTraining"),
        (["tokenize", "scenes", "--model", VQA, "--output_dir", "OUT/words"], VQA, "CBViLAForPreTraining"),
        (["resize-codebook", VQA, "--codes", "8", "--output_dir", "OUT/new"], VQA, "CBViLAForPreTraining"),
        (["search", "OUT", "a red circle", "--model", VQA], VQA, "CBViLAForPreTraining"),
        (["ask", "OUT/p.png", "what?", "--model", PRETRAINED], PRETRAINED, "CBViLAForQuestionAnswering"),
        (["evaluate", "vqa", "--model", PRETRAINED, "--data", "scenes"], PRETRAINED, "CBViLAForQuestionAnswering"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_refuse_checkpoints_with_another_head(argv, model, head, tmp_path, capsys):
    tiny_rows(1)[0]["image"].save(tmp_path / "p.png")
    assert main([word.replace("OUT", str(tmp_path)) for word in argv]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"cbvila {argv[0]}: {model} ") and "was not trained" in said and head in said
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]


def test_heads_of_commands_are_classes_of_the_package():
    assert {head for use in USES.values() for head in use.heads} <= set(transformers_cbvila.__all__)


def test_class_from_outside_is_taken(tmp_path):
    config = {"model_type": "cbvila", "architectures": ["MyPretrainedModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert usable_source("draw", str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("head", [CBViLAForMaskedImageModeling, CBViLAModel])
def test_visual_words_of_a_model_without_the_pretraining_heads_are_its_own(head, tmp_path):
    model = build_head(head).eval()
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    loaded, processor = load_pretrained("tokenize", str(tmp_path))
    pixel_values = processor(images=[row["image"] for row in tiny_rows(3)], return_tensors="pt")["pixel_values"]
    base = getattr(model, "cbvila", model)
    with torch.no_grad():
        assert torch.equal(loaded.tokenize(pixel_values), base(pixel_values=pixel_values).codebook_indices)
