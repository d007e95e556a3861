"""`convert_albef.py`: its output folder, its key table, and the input it rejects."""

import json
import os
import subprocess
import sys
from pathlib import Path

import albef_fixtures
import albef_reference
import pytest
import tiny
import torch
from albef_sizes import layout_of
from command import run
from convert_albef import convert, main
from equal_tensors import assert_equal_weights
from transformers import AutoTokenizer

from transformers_cbvila import (
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAModel,
    CBViLAProcessor,
)

SCRIPT = Path(__file__).parents[2] / "conversion" / "convert_albef.py"
CONFIG = str(albef_fixtures.FIXTURES / "config.json")
PRETRAINED = str(albef_fixtures.CHECKPOINTS["pretrain"])


def command(*arguments):
    return run(main, "convert_albef", [str(argument) for argument in arguments])


def saved(tmp_path, tensors):
    torch.save({"model": tensors}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def contents(folder):
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def assert_refused(tmp_path, capfd, complaint, *arguments):
    """One line on stderr that says `complaint`, exit status 1, and the disk as it was."""
    before = contents(tmp_path)
    assert command(*arguments) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("convert_albef: ")
    assert complaint in err
    assert contents(tmp_path) == before


def test_convert_albef_writes_model_and_prints_key_table(tmp_path, capfd):
    out = tmp_path / "out"
    options = "--checkpoint", PRETRAINED, "--albef_config", CONFIG, "--no_processor", "--output_dir", out
    assert command(*options) == 0
    model = CBViLAForPreTraining.from_pretrained(out)
    table = capfd.readouterr().out
    lines = table.splitlines()
    for key in albef_fixtures.checkpoint("pretrain"):
        assert [line for line in lines if key in line.split()], f"{key} is not in the table"
    for name in model.state_dict():
        assert name in table or name == "objectives.mlm.head.decoder.weight", f"{name} is not in the table"
    assert "137 renamed, 18 split, 12 dropped, 19 fresh" in lines
    assert model.cbvila.logit_scale.item() == pytest.approx(
        -albef_fixtures.checkpoint("pretrain")["temp"].log().item()
    )
    CBViLAModel.from_pretrained(out)
    assert not list(tmp_path.glob(".*"))  # nothing beside it
    assert_refused(tmp_path, capfd, "out is there already", *options)
    (out / "notes.txt").write_text("of mine")
    assert command(*options, "--overwrite") == 0
    assert not (out / "notes.txt").exists() and (out / "model.safetensors").is_file()


def test_convert_albef_writes_albef_processor(tmp_path, capfd):
    tensors = albef_reference.fine_tuned("entailment", vocabulary=len(tiny.WORDS))
    tiny.tiny_processor().tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = {"albef": {"vit_heads": 4}, "bert": {"num_attention_heads": 4}, "special_tokens": {"cls": 101}}
    (tmp_path / "c.json").write_text(json.dumps(given))
    options = "--checkpoint", saved(tmp_path, tensors), "--albef_config", tmp_path / "c.json"
    options += "--tokenizer", tmp_path / "tokenizer", "--output_dir", tmp_path / "out", "--image_size", "48"
    assert command(*options) == 0
    assert "resized from images of 32 px to 48 px" in capfd.readouterr().out
    processor, model = (c.from_pretrained(tmp_path / "out") for c in (CBViLAProcessor, CBViLAForVisualEntailment))
    batch = processor(images=tiny.half_image("red", "left"), text="red half", return_tensors="pt")
    assert batch["input_ids"].tolist() == [[tiny.CLS, tiny.WORDS.index("red"), tiny.WORDS.index("half")]]  # no [SEP]
    assert model(**batch).logits.shape == (1, 3)
    assert list(AutoTokenizer.from_pretrained(tmp_path / "out")("red half")) == ["input_ids", "attention_mask"]
    assert (model.config.text_config.bos_token_id, model.config.text_config.eos_token_id) == (tiny.CLS, tiny.SEP)


def bare(task="retrieval"):
    """The pretraining checkpoint as ALBEF saves it after retrieval."""
    tensors = {
        key.replace(".bert.", "."): value
        for key, value in albef_fixtures.checkpoint("pretrain").items()
        if ".cls." not in key
    }
    return tensors | {"idx_queue": torch.full((1, 16), -100)}


def test_convert_guesses_retrieval_layout(tmp_path):
    tensors, given = bare(), albef_fixtures.albef_config("pretrain")
    assert layout_of(tensors) == "retrieval"
    model, table, _ = convert(tensors, given=given)
    same, _, _ = convert(albef_fixtures.checkpoint("pretrain"), "retrieval", given)
    assert isinstance(model, CBViLAForImageTextRetrieval) and not table.of("fresh")
    assert_equal_weights(same, model)


def test_convert_pretraining_to_tasks_names_fresh_weights(tmp_path):
    tensors, given = albef_fixtures.checkpoint("pretrain"), albef_fixtures.albef_config("pretrain")
    model, table, _ = convert(tensors, "reasoning", given)
    assert {row.target.partition(".")[0] for row in table.of("fresh")} == {"reasoning_head"}
    twin = "cbvila.fusion_model.twin_layers.1.crossattention.q_proj.weight"
    assert twin in [row.target for row in table.of("copied")]
    assert torch.equal(model.state_dict()[twin], model.state_dict()[twin.replace("twin_layers", "layers")])
    model, table, _ = convert(tensors, "vqa", given)
    assert not table.of("fresh") and {row.target.partition(".")[0] for row in table.of("copied")} == {"answer_decoder"}


def test_convert_decoder_of_another_width_keeps_two_matrices(tmp_path):
    tensors = dict(albef_reference.fine_tuned("entailment"))
    pretrained = {k.replace("text_encoder.", "text_encoder.bert."): v for k, v in tensors.items() if "cls_" not in k}
    pretrained |= {f"text_encoder.cls.predictions.transform.{n}": torch.ones(32) for n in ("dense.bias",)}
    pretrained |= {f"text_encoder.cls.predictions.transform.LayerNorm.{n}": torch.ones(32) for n in ("weight", "bias")}
    pretrained |= {
        "text_encoder.cls.predictions.transform.dense.weight": torch.ones(32, 32),
        "text_encoder.cls.predictions.bias": torch.ones(120),
        "itm_head.weight": torch.ones(2, 32),
        "itm_head.bias": torch.ones(2),
        "visual_encoder.cls_token": tensors["visual_encoder.cls_token"],
    }
    given = {"albef": {"vit_heads": 4}, "bert": {"num_attention_heads": 4}}
    _, table, _ = convert(pretrained, "vqa", given)
    assert {row.target.split(".", 3)[-1] for row in table.of("fresh")} == {
        "crossattention.k_proj.weight",
        "crossattention.v_proj.weight",
    }


def test_convert_guesses_attention_heads_and_notes_it():
    _, _, notes = convert(albef_fixtures.checkpoint("pretrain"))  # 64 wide, without a configuration
    assert [note for note in notes if note.startswith("Guessed: 1 attention heads of 64 (albef.vit_heads")]
    assert [note for note in notes if note.startswith("Guessed: 1 attention heads of 64 (bert.num_attention_heads")]
    with pytest.raises(ValueError, match=r"give albef.vit_heads in --albef_config"):
        convert(albef_fixtures.checkpoint("vqa"))  # 32 wide


def without(tensors, *keys):
    return {key: value for key, value in tensors.items() if key not in keys}


@pytest.mark.parametrize(
    "change, arguments, complaint",
    [
        (
            lambda t: without(t, "itm_head.bias"),
            [],
            "1 key is missing: objectives.itm.head.bias. --not_strict",
        ),
        (lambda t: t | {"extra.key": torch.ones(1)}, [], "1 key is unknown: extra.key"),
        (lambda t: without(t, "visual_encoder.pos_embed"), [], "'visual_encoder.pos_embed' is not there"),
        (lambda t: {"layers.0.weight": torch.ones(1)}, [], "This is no ALBEF checkpoint"),
        (
            lambda t: t | {"itm_head.bias": torch.ones(3)},
            [],
            "itm_head.bias gives objectives.itm.head.bias the shape (3,); the model needs (2,)",
        ),
        (lambda t: t, ["--task", "nothing"], None),
        (
            lambda t: t | {"text_encoder.cls.predictions.decoder.weight": torch.ones(1000, 64)},
            [],
            "decoder.weight and text_encoder.bert.embeddings.word_embeddings.weight differ",
        ),
    ],
)
def test_convert_albef_rejects_unknown_and_missing_keys(tmp_path, capfd, change, arguments, complaint):
    file = saved(tmp_path, change(albef_fixtures.checkpoint("pretrain")))
    options = "--checkpoint", file, "--albef_config", CONFIG, "--no_processor", "--output_dir", tmp_path / "out"
    if complaint is None:  # argparse's own way of saying so
        with pytest.raises(SystemExit):
            command(*options, *arguments)
    else:
        assert_refused(tmp_path, capfd, complaint, *options, *arguments)


def test_convert_albef_not_strict_skips_keys(tmp_path, capfd):
    tensors = without(albef_fixtures.checkpoint("pretrain"), "itm_head.bias") | {"extra.key": torch.ones(1)}
    options = "--albef_config", CONFIG, "--no_processor", "--output_dir", tmp_path / "out", "--not_strict"
    assert command("--checkpoint", saved(tmp_path, tensors), *options) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("unknown  extra.key")]
    assert [line for line in lines if line.startswith("missing  -") and "objectives.itm.head.bias" in line]


def test_convert_albef_rejects_wrong_or_missing_tokenizer(tmp_path, capfd):
    tiny.tiny_processor().tokenizer.save_pretrained(tmp_path / "tokenizer")
    options = "--checkpoint", PRETRAINED, "--albef_config", CONFIG, "--output_dir", tmp_path / "out", "--tokenizer"
    words = len(tiny.WORDS)
    complaint = f"1000 word embeddings and the tokenizer {tmp_path / 'tokenizer'} {words} tokens"
    assert_refused(tmp_path, capfd, complaint, *options, tmp_path / "tokenizer")
    assert_refused(tmp_path, capfd, "There is no tokenizer", *options, tmp_path / "nowhere")


def test_convert_albef_without_tokenizer_writes_no_processor(tmp_path, capfd):
    assert command("--checkpoint", PRETRAINED, "--albef_config", CONFIG, "--output_dir", tmp_path / "out") == 0
    assert "No processor beside the model: its 1000 tokens are not bert-base-uncased's" in capfd.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_convert_albef_rejects_contradicting_config(tmp_path, capfd):
    options = "--checkpoint", PRETRAINED, "--no_processor", "--output_dir", tmp_path / "out", "--albef_config"
    given = albef_fixtures.albef_config("pretrain")
    for content, complaint in (
        (
            {**given, "bert": given["bert"] | {"vocab_size": 999}},
            "bert.vocab_size = 999, the checkpoint's tensors 1000",
        ),
        (
            {**given, "albef": given["albef"] | {"vit_heads": 5}},
            "albef.vit_heads = 5, which does not divide the width",
        ),
        ({"hidden_size": 64}, 'must have the form {"albef"'),
    ):
        (tmp_path / "c.json").write_text(json.dumps(content))
        assert_refused(tmp_path, capfd, complaint, *options, tmp_path / "c.json")
    (tmp_path / "c.json").write_text("[1]")
    assert_refused(tmp_path, capfd, "c.json holds a list", *options, tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{")
    assert_refused(tmp_path, capfd, "c.json is no JSON", *options, tmp_path / "c.json")


def test_convert_albef_rejects_wrong_task(tmp_path, capfd):
    file, config = albef_fixtures.CHECKPOINTS["vqa"], albef_fixtures.FIXTURES / "vqa" / "config.json"
    options = "--checkpoint", file, "--albef_config", config, "--no_processor", "--output_dir", tmp_path / "out"
    assert_refused(tmp_path, capfd, "a checkpoint for vqa: it does not convert", *options, "--task", "retrieval")


def test_convert_albef_failed_write_leaves_nothing(tmp_path, capfd, monkeypatch):
    def fail(self, folder):
        (Path(folder) / "half").write_text("written")
        raise OSError("no space left")

    monkeypatch.setattr(CBViLAForPreTraining, "save_pretrained", fail)
    options = "--checkpoint", PRETRAINED, "--albef_config", CONFIG, "--no_processor", "--output_dir"
    assert_refused(tmp_path, capfd, "no space left", *options, tmp_path / "out")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.json").write_text("there before")
    assert command(*options, tmp_path / "kept", "--overwrite") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "config.json"]


def test_convert_albef_overwrite_keeps_other_folders_and_files(tmp_path, capfd):
    file = saved(tmp_path, albef_fixtures.checkpoint("pretrain"))
    options = "--albef_config", CONFIG, "--no_processor", "--overwrite", "--output_dir"
    assert_refused(tmp_path, capfd, "is no model's folder", "--checkpoint", PRETRAINED, *options, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert_refused(tmp_path, capfd, "x.pth is in the output folder", "--checkpoint", file, *options, tmp_path)
    assert_refused(tmp_path, capfd, "x.pth is a file", "--checkpoint", PRETRAINED, *options, file)


@pytest.mark.slow
def test_convert_albef_process_runs_no_pickled_code(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "written"),)

    torch.save({"model": Code()}, tmp_path / "x.pth")
    options = ["--checkpoint", str(tmp_path / "x.pth"), "--no_processor", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "asks for" in done.stderr and "mkdir" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_converted_twin_weights_load_into_other_heads(tmp_path):
    model, _, _ = convert(albef_fixtures.checkpoint("pretrain"), "reasoning", albef_fixtures.albef_config("pretrain"))
    model.save_pretrained(tmp_path)
    loaded, info = CBViLAForVisualReasoning.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_equal_weights(model, loaded)
