"""Pretrains on scenes in Python, from a bundled checkpoint or from random weights, and measures held-out images.

    python examples/pretrain.py --max_steps 300 --output_dir runs/scenes
    python examples/pretrain.py --from_scratch --max_steps 3000 --output_dir runs/scenes-from-scratch
    cbvila inspect runs/scenes --data scenes --split confusers

Nothing is downloaded: `scenes` are drawn when they are read (docs/scenes.md), and the checkpoint is part of the
package. The same job on the command line is `cbvila pretrain --model cbvila-tiny --train_data scenes --eval_data
scenes`, with the other fields below as options.
"""

import argparse
import json

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, CBViLATrainingArguments, load_pairs
from transformers_cbvila.training.pretrain import PretrainingJob, pretrain

# A small model for random weights: images of 64 pixels in 16 patches, two layers per encoder.
_LAYERS = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "initializer_range": 0.08,
}
SMALL = {
    "vision_config": {**_LAYERS, "image_size": 64, "patch_size": 16},
    "text_config": {**_LAYERS, "max_position_embeddings": 64},
    "multimodal_config": {"num_hidden_layers": 2},
    "quantizer_config": {"size": 64},
    "projection_dim": 64,
    "initializer_range": 0.08,
}


def pretraining_job(from_scratch: bool, eval_rows: int) -> PretrainingJob:
    """Returns what to train on what, and what to measure."""
    start = {"model_config": SMALL, "vocab_size": 500} if from_scratch else {"model": "cbvila-tiny"}
    return PretrainingJob(
        train_data=["scenes"],
        max_length=32,  # in tokens, which longer captions of scenes need
        eval_data=["scenes"],
        eval_split="validation",
        eval_rows=eval_rows,
        eval_rerank_k=16,
        **start,
    )


def training_arguments(output_dir: str, max_steps: int, from_scratch: bool) -> CBViLATrainingArguments:
    """Returns how to train: transformers' arguments, and those of CB-ViLA."""
    # Contrast alone first, then all but MIM, whose targets are the codes. A trained checkpoint needs neither.
    phases = {"align_steps": 0.3, "burn_in_steps": 0.4} if from_scratch else {}
    return CBViLATrainingArguments(
        output_dir=output_dir,
        max_steps=max_steps,
        per_device_train_batch_size=32,
        learning_rate=5e-4,
        warmup_steps=0.05,
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=0.4,  # of all steps: twice on the way, beside the start and the end
        eval_on_start=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **phases,
    )


def show(logs: list[dict[str, float]]) -> None:
    """Prints a few metrics of every evaluation, by step."""
    names = ("loss", "codebook_perplexity", "mim_advantage", "image_retrieval_r5", "image_retrieval_r5_reranked")
    for log in logs:
        if "eval_loss" in log:
            print(f"step {log['step']:>5}  " + "  ".join(f"{name}={log[f'eval_{name}']:.3f}" for name in names))


def main(arguments: list[str] | None = None) -> None:
    """Trains and measures, loads the result, and reconstructs an image from its codes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--from_scratch", action="store_true", help="start from random weights, not from cbvila-tiny")
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--eval_rows", type=int, default=200)
    parser.add_argument("--output_dir", default="runs/scenes")
    options = parser.parse_args(arguments)

    args = training_arguments(options.output_dir, options.max_steps, options.from_scratch)
    folder = pretrain(pretraining_job(options.from_scratch, options.eval_rows), args)
    show(json.loads((folder / "pretraining.json").read_text())["logs"])

    model, processor = CBViLAForPreTraining.from_pretrained(folder), CBViLAProcessor.from_pretrained(folder)
    row = load_pairs("scenes", "validation[:1]")[0]
    inputs = processor(images=row["image"], text=row["captions"][0], return_tensors="pt")
    codes = model.reconstruct(**inputs).codebook_indices
    print(f"{row['captions'][0]!r} in {codes.shape[1]} visual words: {codes[0].tolist()}")


if __name__ == "__main__":
    main()
