"""Converts a checkpoint of ALBEF (pretraining, retrieval, VQA, visual entailment or NLVR2) into a CB-ViLA model.

Parts that ALBEF does not have (codebook, visual queries, heads for visual words and pixels) are randomly initialized.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command
from albef_layout import albef_layout, check_duplicates
from albef_sizes import TASKS, Sizes, config_fields, layout_of, sizes_of
from key_table import KeyTable
from output_folder import read_back, refuse_existing, written_folder
from safe_loading import load_tensors
from texts import fitting_tokenizer, token_ids
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from transformers_cbvila import (
    CBViLAConfig,
    CBViLAForImageTextRetrieval,
    CBViLAForPreTraining,
    CBViLAForQuestionAnswering,
    CBViLAForVisualEntailment,
    CBViLAForVisualReasoning,
    CBViLAImageProcessorPil,
    CBViLAProcessor,
)

EXAMPLE = """\
example:
  python conversion/convert_albef.py --checkpoint ALBEF.pth --output_dir cbvila-from-albef
  python conversion/convert_albef.py --checkpoint ALBEF.pth --task vqa --image_size 384 --output_dir cbvila-vqa
  python conversion/convert_albef.py --checkpoint vqa.pth --albef_config config.json --tokenizer my_bert \\
      --output_dir cbvila-vqa

The task is read from the keys. A pretraining checkpoint also converts into the model of another task, initialized as
ALBEF's fine-tuning does (the answer decoder and the twin layers are copies of the fusion layers).
"""
MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    "pretrain": CBViLAForPreTraining,
    "retrieval": CBViLAForImageTextRetrieval,
    "vqa": CBViLAForQuestionAnswering,
    "entailment": CBViLAForVisualEntailment,
    "reasoning": CBViLAForVisualReasoning,
}
ENTAILMENT_CLASSES = ("contradiction", "neutral", "entailment")  # in ALBEF's order
TOKENIZER, VOCABULARY = "bert-base-uncased", 30522  # ALBEF's
NO_ORIGIN = "ALBEF has nothing of the kind"


def convert(
    tensors: Mapping[str, Tensor],
    task: str | None = None,
    given: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    special_ids: Mapping[str, int] | None = None,
    strict: bool = True,
) -> tuple[PreTrainedModel, KeyTable, list[str]]:
    """Converts an ALBEF checkpoint into a CB-ViLA model.

    Args:
        tensors: The checkpoint's tensors.
        task: One of `TASKS`; by default the checkpoint's own. Only pretraining checkpoints convert into others.
        given: ALBEF's configuration, for what the tensors do not determine.
        image_size: Size of the model's images; position embeddings are resized.
        special_ids: `pad_token_id`, `bos_token_id` and `eos_token_id`; BERT's by default.
        strict: Whether unknown keys and missing weights are errors.

    Returns:
        The model in evaluation mode, the table of all keys, and notes about what was assumed.

    Raises:
        ValueError: If this is not an ALBEF checkpoint, or something in it does not fit.
    """
    layout = layout_of(tensors, task)
    task = task or layout
    if task != layout and layout != "pretrain":
        raise ValueError(f"This is a checkpoint for {layout}: it does not convert into a model for {task}.")
    sizes = sizes_of(tensors, layout)
    fields, notes = config_fields(sizes, given, image_size)
    fields["text_config"] |= special_ids or {}
    if task == "entailment":
        fields["id2label"] = dict(enumerate(ENTAILMENT_CLASSES))
        fields["label2id"] = {name: i for i, name in enumerate(ENTAILMENT_CLASSES)}
    if task == "reasoning":
        fields["reasoning_fusion"] = "twin"
    config = CBViLAConfig(**fields)
    check_duplicates(tensors, sizes.fields["fusion_layer"], layout)
    table = KeyTable(tensors, albef_layout(sizes, layout, task, config.vision_config.image_size))
    model: Any = MODEL_CLASSES[task](config).eval()
    table.load_into(model, lambda name: _initialization_reason(name, layout, task), strict)
    temperature = float(tensors["temp"]) if "cbvila.logit_scale" in table.tensors else 0.07
    if not 0.01 <= temperature <= 0.5:
        notes.append(f"The temperature is {temperature:.3g}: our models clamp it to 0.01 to 0.5.")
    if layout == "pretrain" and task == "vqa":
        table.copied(model.start_decoder_from_fusion(), "from the text embeddings and the fusion layers")
    if layout == "pretrain" and task == "reasoning":
        twins = model.cbvila.fusion_model.start_twins()
        table.copied({f"cbvila.fusion_model.{name}" for name in twins}, "from the layers for the first image")
    return model, table, notes


def _initialization_reason(name: str, layout: str, task: str) -> str | None:
    """Returns why a weight is not in a checkpoint of `layout`, or `None` if it should be there."""
    part = name.removeprefix("cbvila.").partition(".")[0]
    if part in ("quantizer", "visual_queries", "text_key_projection"):
        return NO_ORIGIN
    if name.startswith(("objectives.mim.", "objectives.pixel.")):
        return NO_ORIGIN
    if layout == task:
        return None
    if part in ("entailment_head", "reasoning_head"):
        return "pretraining has no such head"
    if part == "answer_decoder" and not name.startswith("answer_decoder.lm_head."):
        return "images are wider or narrower than texts"  # what fits is copied from the fusion encoder
    return "not in pretraining" if "twin_layers." in name else None


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--checkpoint", required=True, metavar="X.pth", help="ALBEF's file, or its safetensors")
    made.add_argument("--task", choices=TASKS, help="the model to make; by default the checkpoint's own task")
    made.add_argument("--albef_config", metavar="C.json", help='ALBEF\'s, as {"albef": {...}, "bert": {...}}')
    made.add_argument("--image_size", type=command.positive, metavar="PX", help="resize the position table for these")
    made.add_argument("--tokenizer", help=f"folder or Hub id; default: {TOKENIZER}, where it fits and can be had")
    command.add_model_options(made)
    return made


def main(argv: list[str] | None = None) -> None:
    """Runs the conversion."""
    options = parser().parse_args(argv)
    inputs = options.checkpoint, options.albef_config, options.tokenizer
    refuse_existing(options.output_dir, options.overwrite, *inputs)
    tensors = load_tensors(options.checkpoint)
    given = _read_json(options.albef_config)
    tokenizer, no_processor = None, ""
    if not options.no_processor:
        tokenizer, no_processor = _tokenizer(options.tokenizer, sizes_of(tensors, layout_of(tensors, options.task)))
    special = token_ids(tokenizer, (given or {}).get("special_tokens"))
    set_seed(options.seed)
    model, table, notes = convert(
        tensors, options.task, given, options.image_size, special, strict=not options.not_strict
    )
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        if tokenizer is not None:
            # ALBEF's texts have [CLS] but no [SEP].
            side = model.config.vision_config.image_size
            images = CBViLAImageProcessorPil(size={"height": side, "width": side})
            CBViLAProcessor(images, tokenizer, add_sep_token=False).save_pretrained(folder)
        count = read_back(model, folder)
    print(table)
    notes += [no_processor] if no_processor else []
    print(*notes, f"{type(model).__name__} in {options.output_dir}: {count} tensors, read back and equal.", sep="\n")


def _tokenizer(name: str | None, sizes: Sizes) -> tuple[Any, str]:
    """Returns what [`fitting_tokenizer`] does, without loading the default one from the Hub if it cannot fit."""
    size = sizes.fields["vocab_size"]
    if name is None and size != VOCABULARY:
        return None, f"No processor beside the model: its {size} tokens are not {TOKENIZER}'s; see --tokenizer."
    return fitting_tokenizer(name, TOKENIZER, size)


def _read_json(path: str | None) -> Any:
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected {{"albef": {{...}}, "bert": {{...}}}}.')
    return content


if __name__ == "__main__":
    raise SystemExit(command.run(main, "convert_albef"))
