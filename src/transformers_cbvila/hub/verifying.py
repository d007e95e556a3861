"""Whether what is published gives what the original gives, to somebody who does not have this package."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..model.configuration_cbvila import CBViLAConfig
from ..model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_question_answering import CBViLAForQuestionAnswering
from ..model.modeling_cbvila_visual_reasoning import CBViLAForVisualReasoning
from ..model.pipeline_cbvila import CBViLAVisualQuestionAnsweringPipeline
from ..model.processing_cbvila import CBViLAProcessor
from ..model.remote_code_cbvila import VQA_TASK
from . import fresh_process
from .checking import Checkpoint
from .kinds import Kind

_TOLERANCE = 1e-5
_BATCH, _TOKENS = 2, 5
# What would bring other caches, or another Hub, into the fresh process.
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Original:
    """What the checkpoint gives in this process, with the package: `inputs` in, `outputs` out."""

    kind: Kind
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def ask_original(checkpoint: Checkpoint) -> Original:
    """
    Load a checkpoint with the package and ask it.

    Raises:
        ValueError: weights are missing in its files, so that some would be random.
    """
    kind = checkpoint.kind
    model, info = kind.model_class.from_pretrained(checkpoint.folder, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{checkpoint.folder} lacks weights of {kind.model_class.__name__}: {', '.join(missing[:5])}")
    processor = CBViLAProcessor.from_pretrained(checkpoint.folder)
    ask = CBViLAVisualQuestionAnsweringPipeline(model, processor=processor) if kind.has_pipeline else None
    inputs = example_inputs(kind, model.config)
    return Original(kind, inputs, fresh_process.outputs_of(model, processor, ask, inputs))


def example_inputs(kind: Kind, config: CBViLAConfig) -> dict[str, Tensor]:
    """A batch that every output of a head depends on; always the same one."""
    generator = torch.Generator().manual_seed(0)
    vision, text = config.vision_config, config.text_config
    several = [config.num_images] if kind.model_class is CBViLAForVisualReasoning else []
    images = [_BATCH, *several, vision.num_channels, vision.image_size, vision.image_size]
    length = min(_TOKENS, text.max_position_embeddings)
    words = torch.randint(5, text.vocab_size, (_BATCH, length), generator=generator)
    inputs = {
        "pixel_values": torch.randn(images, generator=generator),
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
    }
    if kind.model_class is CBViLAForQuestionAnswering:
        special = torch.tensor([text.bos_token_id, text.end_token_id, text.pad_token_id])
        word = next(token for token in range(text.vocab_size) if token not in special.tolist())
        inputs["labels"] = words[:, :2].masked_fill(torch.isin(words[:, :2], special), word)
    if kind.model_class in (CBViLAForPreTraining, CBViLAForMaskedImageModeling):
        inputs["bool_masked_pos"] = (torch.arange(vision.num_patches) % 2 == 0).expand(_BATCH, -1).contiguous()
    if kind.model_class is CBViLAForPreTraining:
        inputs |= {"input_ids_masked": words.flip(1), "mlm_labels": words.clone()}
    return inputs


def verify(source: str | Path, original: Original, revision: str | None = None, hub: dict[str, str] | None = None):
    """
    Load a folder or a repository in a fresh process without this package and with empty caches, and compare.

    Args:
        source: the folder, or as a text the repository's id.
        revision: of a repository, the commit.
        hub: environment variables that say how to reach the Hub; without, the process is offline.

    Raises:
        ValueError: it does not load, or gives something else.
    """
    with TemporaryDirectory() as scratch:
        spec: dict[str, Any] = {
            # the other process has another working folder
            "source": str(source.absolute()) if isinstance(source, Path) else source,
            "revision": revision,
            "auto_class": original.kind.auto_class,
            "task": VQA_TASK if original.kind.has_pipeline else None,
            "inputs": str(Path(scratch, "inputs.safetensors")),
            "outputs": str(Path(scratch, "outputs.safetensors")),
        }
        save_file(original.inputs, spec["inputs"])
        path = Path(scratch, "spec.json")
        path.write_text(json.dumps(spec), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in _CACHES}
        environment |= {"HF_HOME": str(Path(scratch, "home")), "HF_HUB_OFFLINE": "1", **(hub or {})}
        # -P: the folder of the script, which has modules of ours, is not on the path.
        command = [sys.executable, "-P", fresh_process.__file__, str(path)]
        done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ValueError(f"{source} does not load in a fresh process without this package: {last}")
        compare(original.outputs, load_file(spec["outputs"]), str(source))


def compare(expected: dict[str, Tensor], given: dict[str, Tensor], source: str) -> None:
    """Raises ValueError unless both have the same tensors, within 1e-5."""
    if expected.keys() != given.keys():
        raise ValueError(f"{source} gives {sorted(given)}, the original gives {sorted(expected)}")
    for name, value in expected.items():
        if value.shape != given[name].shape:
            raise ValueError(
                f"{source} gives {name} of shape {tuple(given[name].shape)}, the original {tuple(value.shape)}"
            )
        difference = (value.double() - given[name].double()).abs()
        # Differences of what is not a number on either side (a loss without any pair, say) are none.
        worst = difference.nan_to_num(0.0).max().item() if value.numel() else 0.0
        if worst > _TOLERANCE or not torch.equal(value.isnan(), given[name].isnan()):
            raise ValueError(f"{source} gives another {name} than the original, by up to {worst:.3g}")
