"""Initializes a CB-ViLA model from a pretrained ViT and a pretrained BERT, as the paper does (Sec. IV-C).

BERT's lower layers become the text encoder, the others the fusion encoder, whose cross-attention is randomly
initialized. The result is a pretraining model.
"""

import argparse
from collections.abc import Callable

import command
from key_table import KeyTable, Step
from output_folder import read_back, refuse_existing, written_folder
from text_source import TextSource, text_source
from texts import fitting_tokenizer, token_ids
from transformers import set_seed
from vision_source import VisionSource, vision_source

from transformers_cbvila import CBViLAConfig, CBViLAForPreTraining, CBViLAImageProcessorPil, CBViLAProcessor
from transformers_cbvila.model.configuration_cbvila import PRESETS

EXAMPLE = """\
example:
  python conversion/init_from_pretrained.py --vision google/vit-base-patch16-224-in21k --text bert-base-uncased \\
      --output_dir cbvila-base-init
  python conversion/init_from_pretrained.py --vision timm:deit_base_patch16_224 --text my_bert --text_layers 4 \\
      --fusion_layers 4-7 --output_dir cbvila-init

--vision is a ViT of transformers or timm: a folder, a Hub id, a file with timm's names (deit_base_patch16_224.pth), or
timm:MODEL. --text is a BERT: a folder or a Hub id.
"""


def initialize(
    vision: VisionSource, text: TextSource, image_size: int = 256, preset: str = "recommended", strict: bool = True
) -> tuple[CBViLAForPreTraining, KeyTable]:
    """Initializes a pretraining model.

    Args:
        vision: The ViT.
        text: The BERT.
        image_size: Size of the model's images; position embeddings are resized.
        preset: Preset of the configuration.
        strict: Whether unknown keys and missing weights are errors.

    Returns:
        The model in evaluation mode, and the table of all keys.

    Raises:
        ValueError: If something does not fit.
    """
    config = CBViLAConfig.from_preset(
        preset,
        vision_config=vision.config.to_dict() | {"image_size": image_size},
        text_config=text.config.to_dict(),
        multimodal_config={"num_hidden_layers": len(text.fusion_layers)},
    )
    layouts: dict[str, Callable[[str], Step | None]] = {
        "vision": vision.layout(image_size, "cbvila.vision_model."),
        "text": text.layout(),
    }

    def layout(key: str) -> Step | None:
        source, _, rest = key.partition(": ")
        return layouts[source](rest)

    named = {f"vision: {key}": value for key, value in vision.tensors.items()}
    table = KeyTable(named | {f"text: {key}": value for key, value in text.tensors.items()}, layout)
    model = CBViLAForPreTraining(config).eval()
    table.load_into(model, lambda name: _initialization_reason(name, text), strict)
    return model, table


def _initialization_reason(name: str, text: TextSource) -> str | None:
    """Returns why neither ViT nor BERT has a weight, or `None` if one should."""
    if ".crossattention" in name:
        return "BERT has no cross-attention"
    if name.startswith("objectives.mlm.head."):
        return None if text.has_head else "this BERT has no head for masked tokens"
    encoders = ("cbvila.vision_model.", "cbvila.text_model.", "cbvila.fusion_model.")
    return None if name.startswith(encoders) else "neither has anything of the kind"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--vision", required=True, metavar="VIT", help="source of the image encoder")
    made.add_argument("--text", required=True, metavar="BERT", help="source of the text and fusion encoder")
    made.add_argument("--text_layers", metavar="N|LIST", help="6: the lowest six; 0-2,5: these; default: half")
    made.add_argument("--fusion_layers", metavar="N|LIST", help="the same, counted after those; default: the rest")
    made.add_argument("--image_size", type=command.positive, default=256, metavar="PX", help="(default: 256)")
    made.add_argument(
        "--vision_heads",
        type=command.positive,
        metavar="N",
        help="attention heads of a timm model; default: width / 64",
    )
    made.add_argument("--preset", choices=sorted(PRESETS), default="recommended", help="(default: %(default)s)")
    made.add_argument("--tokenizer", help="folder or Hub id; default: the value of --text")
    made.add_argument("--no_check", action="store_true", help="do not compare states with the original models'")
    command.add_model_options(made)
    return made


def main(argv: list[str] | None = None) -> None:
    """Runs the initialization."""
    options = parser().parse_args(argv)
    inputs = options.vision, options.text, options.tokenizer
    refuse_existing(options.output_dir, options.overwrite, *inputs)
    vision = vision_source(options.vision, options.vision_heads)
    text = text_source(options.text, options.text_layers, options.fusion_layers)
    tokenizer, no_processor = None, ""
    if not options.no_processor:
        tokenizer, no_processor = fitting_tokenizer(options.tokenizer, str(text.folder), text.config.vocab_size)
    text.config.update(token_ids(tokenizer))
    set_seed(options.seed)
    model, table = initialize(vision, text, options.image_size, options.preset, not options.not_strict)
    checks = [] if options.no_check else _checks(vision, text, model)
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        if tokenizer is not None:
            size = {"height": options.image_size, "width": options.image_size}
            CBViLAProcessor(CBViLAImageProcessorPil(size=size), tokenizer).save_pretrained(folder)
        count = read_back(model, folder)
    print(table)
    print(*vision.notes, *checks, *([no_processor] if no_processor else []), sep="\n")
    print(f"CBViLAForPreTraining in {options.output_dir}: {count} tensors, read back and equal.")


def _checks(vision: VisionSource, text: TextSource, model: CBViLAForPreTraining) -> list[str]:
    lines = [f"Text and fusion encoder (without cross-attention): within {text.check(model):.1e} of BertModel, fp64."]
    largest = vision.check()
    if largest is not None:
        lines.insert(0, f"Image encoder: within {largest:.1e} of the original's states, fp64.")
    return lines


if __name__ == "__main__":
    raise SystemExit(command.run(main, "init_from_pretrained"))
