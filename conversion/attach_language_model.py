"""Completes a checkpoint that holds an image encoder and a projector alone with the language model that it reads for.

Such a checkpoint names its language model by a folder of the machine that trained it, or has no tokenizer. The folder
that this writes has the tokenizer, and names a language model that is here: `pipeline("image-text-to-text")` loads it.
"""

import argparse
from pathlib import Path

import command
from output_folder import refuse_existing, written_folder

from transformers_cbvila import CBViLAConditionalGenerationProcessor, CBViLAForConditionalGeneration
from transformers_cbvila.bundled import checkpoint_source

EXAMPLE = """\
example:
  make lm
  python conversion/attach_language_model.py --model runs/captions \\
      --language_model .cache/smollm2-135m-instruct --output_dir runs/captions-here
  python conversion/attach_language_model.py --model runs/captions \\
      --language_model HuggingFaceTB/SmolLM2-135M-Instruct --output_dir runs/captions-here
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = command.parser(__doc__, EXAMPLE)
    made.add_argument("--model", required=True, help="folder or Hub id")
    made.add_argument(
        "--language_model", required=True, help="folder or Hub id of the language model that it was trained for"
    )
    return made


def main(argv: list[str] | None = None) -> None:
    """Writes the folder that the command line names."""
    options = parser().parse_args(argv)
    refuse_existing(options.output_dir, options.overwrite, options.model, options.language_model)
    source, language = checkpoint_source(options.model), options.language_model
    # A relative path would be that of another folder when the model is loaded from elsewhere.
    language = str(Path(language).resolve()) if Path(language).is_dir() else language
    model = CBViLAForConditionalGeneration.from_pretrained(source, language_model=language)
    processor = CBViLAConditionalGenerationProcessor.from_pretrained(source, language_model=language)
    if processor.image_token_id != model.config.image_token_id:
        raise ValueError(
            f"{options.language_model} has the token of images at {processor.image_token_id}, and {options.model} "
            f"was trained with {model.config.image_token_id}: it was trained for another language model."
        )
    with written_folder(options.output_dir, options.overwrite) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    print(f"{options.output_dir}: reads images for {language}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, "attach_language_model.py"))
