"""Starts a CB-ViLA model from a pretrained ViT and a pretrained BERT, as the paper does (Sec. IV-C).

BERT's lower layers become the text encoder, the others the fusion encoder, whose cross-attention starts anew. The
result is a pretraining model.
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


def initialised(
    vision: VisionSource, text: TextSource, image_size: int = 256, preset: str = "recommended", strict: bool = True
) -> tuple[CBViLAForPreTraining, KeyTable]:
    """A pretraining model with the weights of both, in evaluation mode, and the account of all keys.

    Args:
        image_size: Of the model's images; positions are resized.
        preset: Of the configuration.
        strict: Whether unknown keys and missing weights are errors.

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
    tied = set(model.all_tied_weights_keys)
    own = {name: value for name, value in model.state_dict().items() if name not in tied}
    table.fit(own, lambda name: _reason_to_start(name, text))
    if strict:
        table.check()
    model.load_state_dict(table.tensors, strict=False)
    model.tie_weights()
    return model, table


def _reason_to_start(name: str, text: TextSource) -> str | None:
    """Why neither ViT nor BERT has a weight; `None` if one should."""
    if ".crossattention" in name:
        return "BERT has no cross-attention"
    if name.startswith("objectives.mlm.head."):
        return None if text.has_head else "this BERT has no head for masked tokens"
    encoders = ("cbvila.vision_model.", "cbvila.text_model.", "cbvila.fusion_model.")
    return None if name.startswith(encoders) else "neither has anything of the kind"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--vision", required=True, metavar="VIT", help="the image encoder's origin")
    made.add_argument("--text", required=True, metavar="BERT", help="the text and fusion encoder's origin")
    made.add_argument("--text_layers", metavar="N|LIST", help="6: the lowest six; 0-2,5: these; default: half")
    made.add_argument("--fusion_layers", metavar="N|LIST", help="the same, counted from there on; default: the rest")
    made.add_argument("--image_size", type=command.positive, default=256, metavar="PX", help="(default: 256)")
    made.add_argument(
        "--vision_heads", type=command.positive, metavar="N", help="of a timm model; default: width / 64"
    )
    made.add_argument("--preset", choices=sorted(PRESETS), default="recommended", help="(default: %(default)s)")
    made.add_argument("--tokenizer", help="folder or Hub id; by default what --text names")
    made.add_argument("--no_check", action="store_true", help="do not compare states with the original libraries'")
    command.add_model_options(made)
    return made


def main(argv: list[str] | None = None) -> None:
    """Starts a model as the command line says."""
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
    model, table = initialised(vision, text, options.image_size, options.preset, not options.not_strict)
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
