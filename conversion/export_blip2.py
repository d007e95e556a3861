"""Saves a Q-Former as a model of transformers: Blip2ForImageTextRetrieval, or Blip2QFormerModel of a Q-Former alone.

What transformers has no place for is left out: the head that generates captions, the temperature, and of a Q-Former
alone the queries and the embeddings of words.
"""

import argparse
from typing import Any

import command
import torch
from blip2_layout import qformer_names, retrieval_names
from blip2_sizes import blip2_config_of, qformer_config_of
from output_folder import read_back, refuse_existing, written_folder
from sources import find, read_config
from transformers import Blip2ForImageTextRetrieval, Blip2QFormerModel, PreTrainedModel

from transformers_cbvila import CBViLAForQFormerPreTraining, CBViLAQFormerConfig, CBViLAQFormerModel

EXAMPLE = """\
example:
  python conversion/export_blip2.py --model runs/qformer --output_dir my-blip2
  python conversion/export_blip2.py --model my-name/my-qformer --output_dir my-blip2 --overwrite
"""
_CLASSES = {"CBViLAForQFormerPreTraining": CBViLAForQFormerPreTraining, "CBViLAQFormerModel": CBViLAQFormerModel}


def exported(model: CBViLAForQFormerPreTraining | CBViLAQFormerModel) -> tuple[PreTrainedModel, list[str]]:
    """Returns transformers' model with the weights of ours, in evaluation mode, and the names that were left out.

    Raises:
        ValueError: If a weight has no counterpart here, or another shape.
    """
    theirs: Any
    if isinstance(model, CBViLAQFormerModel):
        theirs, names = Blip2QFormerModel(qformer_config_of(model.config)), qformer_names
    else:
        theirs, names = Blip2ForImageTextRetrieval(blip2_config_of(model.config)), retrieval_names
    weights = model.state_dict()
    taken: set[str] = set()
    tensors = {}
    for key, value in theirs.state_dict().items():
        ours = names(key)
        missing = [name for name in ours if name not in weights]
        if not ours or missing:
            raise ValueError(f"This model has no {' and no '.join(missing) or 'weight'} for {key}.")
        tensors[key] = torch.cat([weights[name] for name in ours]) if len(ours) > 1 else weights[ours[0]]
        if tensors[key].shape != value.shape:
            raise ValueError(f"{key} would have shape {tuple(tensors[key].shape)}; expected {tuple(value.shape)}.")
        taken |= {*ours}
    theirs.load_state_dict(tensors)
    return theirs.eval(), sorted(weights.keys() - taken)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--model", required=True, metavar="FOLDER", help="folder or Hub id of our Q-Former")
    return made


def main(argv: list[str] | None = None) -> None:
    """Runs the export."""
    options = parser().parse_args(argv)
    refuse_existing(options.output_dir, options.overwrite, options.model)
    source = find(options.model)
    config = read_config(source) if source.is_dir() else {}
    architecture = (config.get("architectures") or [None])[0]
    if config.get("model_type") != CBViLAQFormerConfig.model_type or architecture not in _CLASSES:
        raise ValueError(f"{options.model} is no folder of a {' or a '.join(_CLASSES)}.")
    model, left_out = exported(_CLASSES[architecture].from_pretrained(source))
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        count = read_back(model, folder)
    print(f"Left out: {', '.join(left_out)}.")
    print(f"{type(model).__name__} in {options.output_dir}: {count} tensors, read back and equal.")


if __name__ == "__main__":
    raise SystemExit(command.run(main, "export_blip2"))
