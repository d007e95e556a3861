"""Writes an objective, trains with it, saves, and loads again: predicting the length of the caption from the image.

    python examples/write_an_objective.py --max_steps 20 --output_dir runs/caption-length

The quantized tokens of an image attend to its caption, as for the pixel loss. A head of the objective predicts from
the state of the query [CLS] in front of them how many tokens the caption has. The example is simple, but complete: a
query, a head, options, a check, and a mean over a part of the batch.

Nothing is downloaded: the images are those of easy-VQA (the package `easy-vqa`), the vocabulary is the bundled
checkpoint's. docs/extending.md explains what an objective must implement, and how it is published.
"""

import argparse
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import set_seed

from transformers_cbvila import (
    CBViLAConfig,
    CBViLADataCollatorForPreTraining,
    CBViLAForPreTraining,
    CBViLAObjective,
    CBViLAObjectiveOptions,
    CBViLAProcessor,
    CBViLATrainer,
    CBViLATrainingArguments,
    ImageTextPairs,
    bundled_checkpoint,
    load_pairs,
    register_objective,
)
from transformers_cbvila.model.objective_cbvila import Answer, CBViLAStep, Scored, VisualQuery
from transformers_cbvila.model.options_cbvila import options


# The options in `objectives={"caption_length": …}`; `weight` is inherited, here with another default.
@options
class CaptionLengthOptions(CBViLAObjectiveOptions):
    """Options of [`CaptionLength`].

    Args:
        weight: Weight of the loss term.
        error: Squared or absolute errors of the logarithm of the length.
    """

    weight: float | int = 0.5
    error: Literal["squared", "absolute"] = "squared"


class CaptionLength(CBViLAObjective):
    """Predicts the length of the caption from the state of the query [CLS].

    Shapes: B images, L text tokens, D hidden size.

    Args:
        options: Its options.
        config: The model's configuration.
        quantizer: The model's quantizer.
    """

    options_class = CaptionLengthOptions
    phase = "start"  # active from the first step, or from the end of alignment
    needs = frozenset({"quantizer", "visual_queries"})

    def __init__(self, options: CaptionLengthOptions, config: Any, quantizer: nn.Module | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.head = nn.Linear(config.multimodal_config.hidden_size, 1)

    @classmethod
    def check_with(cls, options: CaptionLengthOptions, config: Any) -> None:
        """Checks the options together with the model's configuration."""
        if options.weight > 0 and config.fusion_visual_cls == "none":
            raise ValueError(
                f"objectives[{cls.name!r}] needs the query [CLS] (weight={options.weight}), which "
                "fusion_visual_cls='none' leaves out: choose 'learned' or 'vit', or a weight of 0."
            )

    def visual_queries(self, step: CBViLAStep) -> list[VisualQuery]:
        """Returns the queries of the fusion pass."""
        # Equal to the pixel objective's query, so that both share one pass and this term costs almost nothing.
        return [VisualQuery("quantized")]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the loss term."""
        predictions = self.head(answers[0].cls).squeeze(-1)
        errors = predictions.float() - caption_lengths(step).log()
        errors = errors.square() if self.options.error == "squared" else errors.abs()
        # Where the caption was dropped, the image attended to an empty one: there is nothing to predict.
        seen = torch.ones_like(errors).bool() if step.caption_dropped is None else ~step.caption_dropped.bool()
        # `counted` is what the mean is over, which makes several processes train as one with all their images.
        return {self.name: Scored((errors * seen).sum() / seen.sum().clamp_min(1), counted=seen)}


def caption_lengths(step: CBViLAStep) -> Tensor:
    """Returns the number of tokens of each caption (B,), including [CLS] and [SEP]."""
    mask = torch.ones_like(step.input_ids) if step.attention_mask is None else step.attention_mask
    return mask.sum(-1).float()


# Now a configuration can name it. Loading a checkpoint with the package needs the same registration first.
register_objective("caption_length", CaptionLength)


def build(processor: CBViLAProcessor) -> CBViLAForPreTraining:
    """Returns a small model with random weights: images of 64 pixels in 16 patches, two layers per encoder."""
    small: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "initializer_range": 0.08,
    }
    tokenizer = processor.tokenizer
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = CBViLAConfig(
        vision_config={**small, "image_size": 64, "patch_size": 16},
        text_config={**small, **vocabulary},
        multimodal_config={"num_hidden_layers": 2},
        quantizer_config={"size": 64},
        objectives={"caption_length": {"weight": 0.5}},
        projection_dim=64,
        initializer_range=0.08,
    )
    return CBViLAForPreTraining(config)


def main(arguments: list[str] | None = None) -> None:
    """Trains, saves and loads a model, and prints its last losses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--max_steps", type=int, default=20)
    parser.add_argument("--output_dir", default="runs/caption-length")
    options = parser.parse_args(arguments)

    set_seed(0)
    processor = CBViLAProcessor.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    model = build(processor)
    trainer = CBViLATrainer(
        model=model,
        args=CBViLATrainingArguments(
            output_dir=options.output_dir,
            max_steps=options.max_steps,
            burn_in_steps=0.5,  # MIM and MLM begin after it
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=ImageTextPairs(load_pairs("easy-vqa")),
        data_collator=CBViLADataCollatorForPreTraining(processor, model.config.vision_config.patch_size),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()  # also saves the processor

    loaded = CBViLAForPreTraining.from_pretrained(options.output_dir)
    heads = [each.objectives["caption_length"].head.weight.cpu() for each in (model, loaded)]
    assert torch.equal(*heads)
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    print("  ".join(f"{name}={last[name]:.3f}" for name in last if name.startswith("loss")))


if __name__ == "__main__":
    main()
