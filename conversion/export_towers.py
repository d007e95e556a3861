"""Saves the text or the image encoder of a CB-ViLA model as a BertModel or ViTModel of transformers.

Neither has a pooler, because CB-ViLA uses the state of the first token. The text encoder has as many layers as in the
model (the lower half of BERT); the fusion encoder is not exported.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import torch
from bert_layout import bert_name
from key_table import KeyTable, Step
from output_folder import read_back, refuse_existing, written_folder
from sources import find, read_config
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedModel, ViTConfig, ViTModel
from vision_source import difference
from vit_layout import transformers_names

from transformers_cbvila import CBViLAModel, CBViLAProcessor, CBViLATextModel, CBViLAVisionModel
from transformers_cbvila.bundled import checkpoint_source

EXAMPLE = """\
example:
  python conversion/export_towers.py --model cbvila-tiny --tower text --output_dir my-bert
  python conversion/export_towers.py --model runs/mine --tower vision --output_dir my-vit
"""
# Fields that our configurations share with BertConfig and ViTConfig, with the same meaning.
_BOTH = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)
_TEXT = (*_BOTH, "vocab_size", "max_position_embeddings", "type_vocab_size")
_TEXT_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
_VISION = (*_BOTH, "image_size", "patch_size", "num_channels", "qkv_bias")
_IMAGE_PROCESSOR = (
    "size",
    "resample",
    "image_mean",
    "image_std",
    "rescale_factor",
    "do_resize",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
)


def exported(tower: CBViLATextModel | CBViLAVisionModel) -> tuple[PreTrainedModel, KeyTable]:
    """Returns transformers' model with a tower's weights, in evaluation mode, and the table of all keys."""
    model: PreTrainedModel
    names: Callable[[str], str | None]
    if isinstance(tower, CBViLATextModel):
        fields = {name: getattr(tower.config, name) for name in (*_TEXT, *_TEXT_IDS)}
        model, names = BertModel(BertConfig(**fields), add_pooling_layer=False), _text_name
    else:
        fields = {name: getattr(tower.config, name) for name in _VISION}
        model, names = ViTModel(ViTConfig(**fields), add_pooling_layer=False), _vision_name
    # Both the old and the new names of transformers' weights are known.
    theirs = model.state_dict()
    places = {names(key): key for key in theirs}

    def layout(key: str) -> Step | None:
        return Step((places[key],)) if key in places else None

    table = KeyTable(tower.state_dict(), layout)
    table.fit(theirs, lambda key: None)
    table.check()
    model.load_state_dict(table.tensors)
    return model.eval(), table


def _text_name(key: str) -> str | None:
    found = bert_name(key)
    if found is None:
        return None
    return f"embeddings.{found.name}" if found.part == "embeddings" else f"layers.{found.layer}.{found.name}"


def _vision_name(key: str) -> str | None:
    return next(iter(transformers_names(key)), None)


def check(tower: Any, folder: Path) -> float:
    """Returns the largest difference in fp64 between a tower's states and those of the model in `folder`.

    Raises:
        ValueError: If they differ.
    """
    config, tower = tower.config, tower.double()
    with torch.no_grad():
        if isinstance(tower, CBViLATextModel):
            theirs = BertModel.from_pretrained(folder, add_pooling_layer=False).eval().double()
            ids = torch.randint(config.vocab_size, (2, min(12, config.max_position_embeddings)))
            return difference("text", theirs(ids).last_hidden_state, tower(ids).last_hidden_state)
        model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval().double()
        shape = (2, config.num_channels, config.image_size, config.image_size)
        images = torch.randn(shape, dtype=torch.float64)
        return difference("image", model(images).last_hidden_state, tower(images).last_hidden_state)


def _save_preprocessing(source: Path, tower: str, folder: Path) -> None:
    """Saves the tokenizer, or a ViTImageProcessor with the settings of the model's image processor."""
    if tower == "text":
        tokenizer = AutoTokenizer.from_pretrained(source)
        tokenizer.init_kwargs.pop("processor_class", None)  # no longer part of a CBViLAProcessor
        tokenizer.save_pretrained(folder)
    else:
        # Imported here because the import prints a warning without torchvision.
        from transformers import ViTImageProcessor

        processor = CBViLAProcessor.from_pretrained(source).image_processor
        fields = {name: getattr(processor, name) for name in _IMAGE_PROCESSOR}
        ViTImageProcessor(**fields).save_pretrained(folder)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument(
        "--model", required=True, metavar="FOLDER", help="folder, Hub id or bundled name of a CB-ViLA model"
    )
    made.add_argument("--tower", required=True, choices=("text", "vision"), help="encoder to export")
    return made


def main(argv: list[str] | None = None) -> None:
    """Runs the export."""
    options = parser().parse_args(argv)
    refuse_existing(options.output_dir, options.overwrite, options.model)
    source = find(checkpoint_source(options.model))
    if not source.is_dir() or read_config(source).get("model_type") != "cbvila":
        raise ValueError(f"{options.model} is no folder of a CB-ViLA model.")
    tower = getattr(CBViLAModel.from_pretrained(source), f"{options.tower}_model").eval()
    model, table = exported(tower)
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        if (source / "processor_config.json").is_file():
            _save_preprocessing(source, options.tower, folder)
        count, largest = read_back(model, folder, add_pooling_layer=False), check(tower, folder)
    print(table)
    print(f"{type(model).__name__} in {options.output_dir}: {count} tensors, states within {largest:.1e} in fp64.")


if __name__ == "__main__":
    raise SystemExit(command.run(main, "export_towers"))
