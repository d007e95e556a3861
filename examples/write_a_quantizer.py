"""Writes a quantizer, trains with it, saves, and loads again: a random projection with random codes.

    python examples/write_a_quantizer.py --max_steps 20 --output_dir runs/random-projection

The idea is that of BEST-RQ (Chiu et al., "Self-supervised learning with random-projection quantizer for speech
recognition"): tokens are multiplied by a random matrix, and each is assigned the nearest of K random directions.
Neither the matrix nor the codes are trained, so that the codebook cannot collapse, and indices change only with the
image encoder. The layer that projects codes back to the encoder's hidden size is trained.

Nothing is downloaded: the images are those of easy-VQA (the package `easy-vqa`), the vocabulary is the bundled
checkpoint's. docs/extending.md explains what a quantizer must implement, and how it is published.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers import set_seed

from transformers_cbvila import (
    CBViLAConfig,
    CBViLADataCollatorForPreTraining,
    CBViLAForPreTraining,
    CBViLAProcessor,
    CBViLAQuantizer,
    CBViLAQuantizerOptions,
    CBViLAQuantizerOutput,
    CBViLATrainer,
    CBViLATrainingArguments,
    ImageTextPairs,
    bundled_checkpoint,
    load_pairs,
    register_quantizer,
)
from transformers_cbvila.model.autocast_cbvila import without_autocast
from transformers_cbvila.model.code_gradients_cbvila import straight_through
from transformers_cbvila.model.losses_cbvila import at_least_fp32
from transformers_cbvila.model.nearest_codes_cbvila import count_codes, nearest_codes
from transformers_cbvila.model.options_cbvila import options, require_range
from transformers_cbvila.model.projections_cbvila import project
from transformers_cbvila.model.quantizer_cbvila import token_codes
from transformers_cbvila.model.quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints


# The options in `quantizer_config`, in addition to "type". Types are checked, and unknown names are errors.
@options
class RandomProjectionOptions(CBViLAQuantizerOptions):
    """Options of [`RandomProjectionQuantizer`].

    Args:
        size: Number of codes K.
        dim: Code dimension C.
    """

    size: int = 64
    dim: int = 16

    def check(self, where: str) -> None:
        """Checks the values."""
        require_range(where, "size", self.size, 2)
        require_range(where, "dim", self.dim, 1)


class RandomProjectionQuantizer(CBViLAQuantizer):
    """Assigns each token the nearest of K random directions, after a random projection.

    Shapes: B batch, N visual tokens, D hidden size of the image encoder, C code dimension, K codes.

    Args:
        options: Its options.
        width: D.
        gradients: Which outputs pass gradients to the image encoder.
    """

    options_class = RandomProjectionOptions
    collapse_advice = "a larger dim in quantizer_config; fewer codes"

    def __init__(
        self, options: RandomProjectionOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        # Buffers are saved with the weights but not trained.
        self.register_buffer("projection", torch.zeros(width, options.dim))
        self.register_buffer("codes", torch.zeros(options.size, options.dim))
        self.out_proj = nn.Linear(options.dim, width)
        # Half precision is too coarse for distances: the quantizer stays in fp32 whatever the model's dtype.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    def init_own_weights(self, std: float) -> None:
        """Initializes its own parameters and buffers; `init` skips those that were loaded from a checkpoint."""
        init.xavier_uniform_(self.projection)
        init.normal_(self.codes)
        init.copy_(self.codes, F.normalize(self.codes, dim=-1))

    @classmethod
    def sizes(cls, options: RandomProjectionOptions) -> tuple[int, ...]:
        """Returns the number of codes of each book."""
        return (options.size,)

    @without_autocast
    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects tokens (…, D) to latents (…, C)."""
        latents = F.layer_norm(tokens.to(self.projection.dtype), (self.width,)) @ self.projection
        return F.normalize(at_least_fp32(latents), dim=-1)

    @without_autocast
    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the index (…) of the nearest code of latents (…, C)."""
        return nearest_codes(latents.flatten(0, -2), at_least_fp32(self.codes)).view(latents.shape[:-1])

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of indices (…)."""
        return self.decode(token_codes(indices, self.codes))

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Projects codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the codes (K, C) of each book, for heads that compare states with codes."""
        return (at_least_fp32(self.codes),)

    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes tokens (B, N, D)."""
        self.check_hints(hints)
        latents = self.encode(tokens)
        indices = self.lookup(latents)
        codes = token_codes(indices, self.codes)
        return CBViLAQuantizerOutput(
            quantized=self.decode(self._pass_gradient(latents, codes, self.gradients.quantized)),
            detached=self.decode(self._pass_gradient(latents, codes, self.gradients.detached)),
            indices=indices,
            counts=count_codes(indices, self.num_codes),
            codes=self.head_codes(),
        )

    def _pass_gradient(self, latents: Tensor, codes: Tensor, trains_encoder: bool) -> Tensor:
        """Returns the codes; in training with a straight-through gradient to the image encoder, if enabled."""
        return straight_through(latents, codes) if self.training and trains_encoder else codes


# Now a configuration can name it. Loading a checkpoint with the package needs the same registration first.
register_quantizer("random_projection", RandomProjectionQuantizer)


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
        quantizer_config={"type": "random_projection", "size": 64, "dim": 16},
        projection_dim=64,
        initializer_range=0.08,
    )
    return CBViLAForPreTraining(config)


def main(arguments: list[str] | None = None) -> None:
    """Trains, saves and loads a model, and prints its last losses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--max_steps", type=int, default=20)
    parser.add_argument("--output_dir", default="runs/random-projection")
    options = parser.parse_args(arguments)

    set_seed(0)
    processor = CBViLAProcessor.from_pretrained(bundled_checkpoint("cbvila-tiny"))
    model = build(processor)
    trainer = CBViLATrainer(
        model=model,
        args=CBViLATrainingArguments(
            output_dir=options.output_dir,
            max_steps=options.max_steps,
            burn_in_steps=0.5,  # MIM, whose targets are these codes, begins after it
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
    assert torch.equal(loaded.cbvila.quantizer.codes, model.cbvila.quantizer.codes.cpu())
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    names = [name for name in last if name.startswith("loss") or name == "codebook_perplexity"]
    print("  ".join(f"{name}={last[name]:.3f}" for name in names))


if __name__ == "__main__":
    main()
