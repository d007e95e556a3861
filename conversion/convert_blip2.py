"""Converts a Q-Former of transformers (Blip2ForImageTextRetrieval or Blip2QFormerModel) into ours.

What transformers has no place for is randomly initialized: the head that generates captions, and beside a
Blip2QFormerModel the queries and the embeddings of words.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import command
from blip2_layout import qformer_names, retrieval_names
from blip2_sizes import config_from_blip2
from key_table import KeyTable, Step
from output_folder import read_back, refuse_existing, written_folder
from safe_loading import load_folder
from sources import find, read_config
from texts import fitting_tokenizer
from torch import Tensor
from transformers import Blip2Config, Blip2QFormerConfig, PreTrainedModel, set_seed

from transformers_cbvila import (
    CBViLAForQFormerPreTraining,
    CBViLAImageProcessorPil,
    CBViLAProcessor,
    CBViLAQFormerModel,
)

EXAMPLE = """\
example:
  python conversion/convert_blip2.py --model Salesforce/blip2-itm-vit-g --output_dir runs/qformer
  python conversion/convert_blip2.py --model my-blip2 --tokenizer my-bert --output_dir runs/qformer
"""
TOKENIZER = "bert-base-uncased"
# Architecture of transformers, its configuration, our class, and the names of weights.
_KINDS: dict[str, tuple[Any, type[PreTrainedModel], Callable[[str], tuple[str, ...]]]] = {
    "Blip2ForImageTextRetrieval": (Blip2Config, CBViLAForQFormerPreTraining, retrieval_names),
    "Blip2QFormerModel": (Blip2QFormerConfig, CBViLAQFormerModel, qformer_names),
}
_FRESH = {
    "lm_head": "transformers has no head that generates captions",
    "logit_scale": "transformers has no temperature",
    "embeddings": "not part of a Blip2QFormerModel",
}


def convert(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], strict: bool = True
) -> tuple[PreTrainedModel, KeyTable]:
    """Converts a Q-Former of transformers.

    Args:
        tensors: Its weights.
        config: The contents of its config.json.
        strict: Whether unknown keys and missing weights are errors.

    Returns:
        The model in evaluation mode, and the table of all keys.

    Raises:
        ValueError: If it is none of both models, or something in it does not fit.
    """
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in _KINDS:
        raise ValueError(f"This is a {architecture}; expected {' or '.join(_KINDS)}.")
    config_class, model_class, names = _KINDS[architecture]
    theirs = config_class.from_dict(dict(config))
    model = model_class(config_from_blip2(theirs)).eval()
    qformer = getattr(theirs, "qformer_config", theirs)

    def layout(key: str) -> Step | None:
        if key.endswith("position_ids"):
            return Step(note="a constant")
        return Step(names(key)) if names(key) else None

    table = KeyTable(tensors, layout)
    table.load_into(model, lambda name: _initialization_reason(name, qformer.use_qformer_text_input), strict)
    return model, table


def _initialization_reason(name: str, has_text: bool) -> str | None:
    """Returns why a weight is not in the checkpoint, or `None` if it should be there."""
    part = name.partition(".")[0]
    if part == "embeddings" and "layernorm" in name:
        return None
    if not has_text and (".mlp." in name or ".output_layernorm." in name) and "vision_model" not in name:
        return "this Q-Former takes no text"
    return _FRESH.get(part)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--model", required=True, metavar="FOLDER", help="folder or Hub id of the model of transformers")
    made.add_argument("--tokenizer", help=f"folder or Hub id; default: {TOKENIZER}, where it fits and can be had")
    command.add_model_options(made)
    return made


def main(argv: list[str] | None = None) -> None:
    """Runs the conversion."""
    options = parser().parse_args(argv)
    refuse_existing(options.output_dir, options.overwrite, options.model, options.tokenizer)
    source = find(options.model)
    set_seed(options.seed)
    model, table = convert(load_folder(source), read_config(source), strict=not options.not_strict)
    config: Any = model.config
    tokenizer, note = None, ""
    if not options.no_processor:
        tokens = config.vocab_size - (config.dec_token_id is not None)  # [DEC] is a row of the model alone
        tokenizer, note = fitting_tokenizer(options.tokenizer, TOKENIZER, tokens)
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        if tokenizer is not None:
            side = config.vision_config.image_size
            images = CBViLAImageProcessorPil(size={"height": side, "width": side})
            CBViLAProcessor(images, tokenizer).save_pretrained(folder)
        count = read_back(model, folder)
    print(table)
    notes = [note] if note else []
    print(*notes, f"{type(model).__name__} in {options.output_dir}: {count} tensors, read back and equal.", sep="\n")


if __name__ == "__main__":
    raise SystemExit(command.run(main, "convert_blip2"))
