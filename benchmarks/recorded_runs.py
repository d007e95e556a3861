"""Trains short runs with the package on the path and writes fingerprints of their weights, for `compare.py`.

Only public interfaces are used (the command line, the recipe, `from_pretrained`), so that the same file runs on any
commit. Equal fingerprints mean equal bits.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

PACKAGE = "transformers_cbvila"
RECIPE = Path("recipes/pretrain-tiny.yaml")
# All phases in few steps: alignment, burn-in (with restarts, and k-means at the end of both), hardening, decay.
PHASES = {
    "align_steps": 0.2,
    "burn_in_steps": 0.5,
    "negative_hardening": "0.2,0.8",
    "codebook_restart_grace": 2,
    "warmup_steps": 5,
    "per_device_train_batch_size": 16,
    "logging_steps": 5,
    "save_strategy": "no",
    "report_to": "none",
    "dataloader_num_workers": 0,
    "use_cpu": True,
}
EVERYTHING, VARIANT = 50, 30  # steps
OUTPUTS = ("codebook_indices", "mim_logits", "mlm_logits", "itm_logits", "pixel_predictions", "image_embeds")
# Differences from the recipe: fields of the model's configuration, and options of the command.
RUNS: dict[str, tuple[dict, dict]] = {
    "recipe": ({}, {"max_steps": EVERYTHING}),
    "momentum": ({}, {"momentum_distill": 0.4, "momentum_decay": 0.9, "queue_size": 48}),
    "gumbel": ({"quantizer_gradient": "gumbel"}, {}),
    "rotation": ({"quantizer_gradient": "rotation"}, {}),
    "codes by loss": ({"codebook_update": "loss"}, {"codebook_restart_threshold": 0.0}),
    "masked before the encoder": ({"mim_mask_stage": "pre", "mim_cls_bag_weight": 0.5}, {}),
    "pixels of both": ({"pixel_on": "both", "mim_head": "tied"}, {}),
    "two processes": ({}, {}),
}


def fingerprint(tensor: torch.Tensor) -> str:
    """Returns a hash of a tensor's shape, type and bits."""
    data = tensor.detach().contiguous().cpu()
    head = f"{tuple(data.shape)} {data.dtype} ".encode()
    return hashlib.sha256(head + data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def command(name: str, folder: Path) -> list[str]:
    """Returns the arguments of `cbvila` for a run that writes to `folder`."""
    recipe = yaml.safe_load(RECIPE.read_text())
    fields, options = RUNS[name]
    decay = recipe.get("lr_scheduler_kwargs", {})
    if "num_decay_steps" in decay:  # the recipe's number is for its own max_steps
        decay = decay | {"num_decay_steps": 10}
    given = PHASES | {"max_steps": VARIANT, "seed": 0, "output_dir": folder} | options
    return [
        *("pretrain", "--config", str(RECIPE), "--train_data", "easy-vqa"),
        *("--model_config", json.dumps(recipe["model_config"] | fields)),
        *("--lr_scheduler_kwargs", json.dumps(decay)),
        *(str(part) for option, value in given.items() for part in (f"--{option}", value)),
    ]


def train(name: str, folder: Path) -> dict[str, str]:
    """Trains a run and returns the fingerprints of its weights by name."""
    if name == "two processes":
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571", "-m", PACKAGE]
        subprocess.run([sys.executable, *launch, *command(name, folder)], check=True, stdout=subprocess.DEVNULL)
    else:
        from transformers_cbvila.cli import main

        if main(command(name, folder)) != 0:
            raise SystemExit(f"the run {name!r} failed")
    return {key: fingerprint(value) for key, value in load_file(folder / "model.safetensors").items()}


def bundled_outputs() -> dict[str, str]:
    """Returns fingerprints of the bundled checkpoints' outputs for random images."""
    from transformers_cbvila import CBViLAForPreTraining, CBViLAForQuestionAnswering, bundled_checkpoint

    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ids = torch.tensor([[2, 20, 30, 3], [2, 40, 50, 3]])
    found = {}
    model = CBViLAForPreTraining.from_pretrained(bundled_checkpoint("cbvila-tiny")).eval()
    masks = torch.arange(32).view(2, 16) % 3 == 0
    with torch.no_grad():
        output = model(pixels, ids, bool_masked_pos=masks, input_ids_masked=ids, mlm_labels=ids)
        for name in (
            "codebook_indices",
            "mim_logits",
            "mlm_logits",
            "itm_logits",
            "pixel_predictions",
            "image_embeds",
        ):
            found[f"cbvila-tiny {name}"] = fingerprint(output[name])
        answering = CBViLAForQuestionAnswering.from_pretrained(bundled_checkpoint("cbvila-tiny-easyvqa")).eval()
        answers = torch.tensor([[187, 3], [176, 3]])
        found["cbvila-tiny-easyvqa logits"] = fingerprint(answering(pixels, ids, labels=answers).logits)
    return found


def main() -> None:
    """Trains the runs and writes their fingerprints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="file to write the fingerprints to")
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=RUNS, help="which runs (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    record = {"bundled checkpoints": bundled_outputs()}
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(options.runs):
            record[name] = train(name, Path(scratch) / str(number))
    options.output.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
