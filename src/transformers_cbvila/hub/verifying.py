"""Verifies that a published model, loaded without this package, has the same outputs as the original."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
from ..model.remote_code_cbvila import VQA_TASK
from . import fresh_process
from .checking import Checkpoint
from .kinds import Kind

_TOLERANCE = 1e-5
_BATCH, _TOKENS = 2, 5
# Variables that would bring other caches, or another Hub, into the fresh process.
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Original:
    """Inputs and outputs of the original checkpoint, in this process and with the package.

    Attributes:
        kind: Its kind.
        inputs: Inputs of the model.
        outputs: Outputs by name.
        language_model: The folder of the language model that belongs to it, if any.
    """

    kind: Kind
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    language_model: str | None = None


def run_original(checkpoint: Checkpoint) -> Original:
    """Loads a checkpoint with the package and computes its outputs.

    Raises:
        ValueError: If its files lack weights, so that some would be random.
    """
    kind = checkpoint.kind
    model, info = kind.model_class.from_pretrained(checkpoint.folder, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{checkpoint.folder} lacks weights of {kind.model_class.__name__}: {', '.join(missing[:5])}")
    processor = kind.processor_class.from_pretrained(checkpoint.folder)
    ask = CBViLAVisualQuestionAnsweringPipeline(model, processor=processor) if kind.has_pipeline else None
    inputs = example_inputs(kind, model.config)
    language_model = _folder_of(model.config.language_model) if kind.has_language_model else None
    return Original(kind, inputs, fresh_process.outputs_of(model, processor, ask, inputs), language_model)


def _folder_of(name: str) -> str:
    """Returns the folder of a model that has been loaded by its name, for a process that has no access to the Hub."""
    return os.path.abspath(name) if os.path.isdir(name) else snapshot_download(name, local_files_only=True)


def example_inputs(kind: Kind, config: Any) -> dict[str, Tensor]:
    """Returns a fixed batch with all inputs that the outputs of a head depend on."""
    generator = torch.Generator().manual_seed(0)
    # A Q-Former's own fields are those of its text.
    vision, text = config.vision_config, getattr(config, "text_config", config).get_text_config()
    several = [config.num_images] if kind.model_class is CBViLAForVisualReasoning else []
    images = [_BATCH, *several, vision.num_channels, vision.image_size, vision.image_size]
    length = min(_TOKENS, text.max_position_embeddings)
    input_ids = torch.randint(5, text.vocab_size, (_BATCH, length), generator=generator)
    inputs = {
        "pixel_values": torch.randn(images, generator=generator),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
    }
    if kind.has_language_model:
        image = torch.full((_BATCH, config.num_image_tokens), config.image_token_id)
        ids = torch.cat([image, input_ids], dim=1)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    if kind.model_class is CBViLAForQuestionAnswering:
        special = torch.tensor([text.bos_token_id, text.end_token_id, text.pad_token_id])
        other = next(token for token in range(text.vocab_size) if token not in special.tolist())
        inputs["labels"] = input_ids[:, :2].masked_fill(torch.isin(input_ids[:, :2], special), other)
    if kind.model_class in (CBViLAForPreTraining, CBViLAForMaskedImageModeling):
        inputs["bool_masked_pos"] = (torch.arange(vision.num_patches) % 2 == 0).expand(_BATCH, -1).contiguous()
    if kind.model_class is CBViLAForPreTraining:
        inputs |= {"input_ids_masked": input_ids.flip(1), "mlm_labels": input_ids.clone()}
    return inputs


def verify(
    source: str | Path, original: Original, revision: str | None = None, hub: dict[str, str] | None = None
) -> None:
    """Loads a folder or repository in a fresh process without this package and with empty caches, and compares.

    Args:
        source: The folder, or the repository's id as a string.
        original: Inputs and expected outputs.
        revision: The commit of a repository.
        hub: Environment variables for access to the Hub; the process is offline by default.

    Raises:
        ValueError: If it does not load, or has other outputs.
    """
    with TemporaryDirectory() as scratch:
        spec: dict[str, Any] = {
            # absolute: the process has another working folder
            "source": str(source.absolute()) if isinstance(source, Path) else source,
            "revision": revision,
            "auto_class": original.kind.auto_class,
            "language_model": original.language_model,
            "task": VQA_TASK if original.kind.has_pipeline else None,
            "inputs": str(Path(scratch, "inputs.safetensors")),
            "outputs": str(Path(scratch, "outputs.safetensors")),
        }
        save_file(original.inputs, spec["inputs"])
        path = Path(scratch, "spec.json")
        path.write_text(json.dumps(spec), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in _CACHES}
        environment |= {"HF_HOME": str(Path(scratch, "home")), "HF_HUB_OFFLINE": "1", **(hub or {})}
        # -P: keeps the script's folder, which has modules of this package, off the path.
        command = [sys.executable, "-P", fresh_process.__file__, str(path)]
        done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ValueError(f"{source} does not load in a fresh process without this package: {last}")
        compare(original.outputs, load_file(spec["outputs"]), str(source))


def compare(expected: dict[str, Tensor], given: dict[str, Tensor], source: str) -> None:
    """Compares tensors by name, within 1e-5.

    Raises:
        ValueError: If names, shapes or values differ.
    """
    if expected.keys() != given.keys():
        raise ValueError(f"{source} gives {sorted(given)}, the original gives {sorted(expected)}")
    for name, value in expected.items():
        if value.shape != given[name].shape:
            raise ValueError(
                f"{source} gives {name} of shape {tuple(given[name].shape)}, the original {tuple(value.shape)}"
            )
        difference = (value.double() - given[name].double()).abs()
        # NaN on both sides counts as equal (a loss without any pair, say).
        worst = difference.nan_to_num(0.0).max().item() if value.numel() else 0.0
        if worst > _TOLERANCE or not torch.equal(value.isnan(), given[name].isnan()):
            raise ValueError(f"{source} gives another {name} than the original, by up to {worst:.3g}")
