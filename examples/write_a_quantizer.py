"""Write a quantizer of your own, train with it, save, and load again: a random projection with random codes.

    python examples/write_a_quantizer.py --max_steps 20 --output_dir runs/random-projection

The idea is that of BEST-RQ (Chiu et al., "Self-supervised learning with random-projection quantizer for speech
recognition"): tokens are multiplied by a random matrix and named after the nearest of K random directions. Neither the
matrix nor the codes ever change. So there is no codebook to collapse and nothing to fit: indices change only as the
image encoder does. What a code looks like is still learned, by the layer that brings it back to the encoder's width.

Nothing is downloaded: the pictures are easy-VQA's (the package `easy-vqa`), the vocabulary is the bundled
checkpoint's. docs/extending.md explains what a quantizer must do, and how it is published.
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


# What can be chosen in `quantizer_config`, beside "type". Types are checked, and misspelt names are refused.
@options
class RandomProjectionOptions(CBViLAQuantizerOptions):
    """Options of [`RandomProjectionQuantizer`].

    Args:
        size: Number of codes K.
        dim: Width C that tokens are projected to.
    """

    size: int = 64
    dim: int = 16

    def check(self, where: str) -> None:
        require_range(where, "size", self.size, 2)
        require_range(where, "dim", self.dim, 1)


class RandomProjectionQuantizer(CBViLAQuantizer):
    """The nearest of K random directions, after a random projection.

    Shapes: B batch, N visual tokens, D vision width, C code width, K codes.
    """

    options_class = RandomProjectionOptions
    collapse_advice = "a larger dim in quantizer_config; fewer codes"

    def __init__(
        self, options: RandomProjectionOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        self.book_sizes = self.sizes(options)
        # Buffers: saved with the weights, and out of the optimizer's reach.
        self.register_buffer("projection", torch.zeros(width, options.dim))
        self.register_buffer("codes", torch.zeros(options.size, options.dim))
        self.out_proj = nn.Linear(options.dim, width)
        # Distances mean little in half precision: the quantizer stays in fp32 where the rest of a model does not.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    def init_own_weights(self, std: float) -> None:
        """How parameters and buffers of its own start; `init` leaves alone what was loaded from a checkpoint."""
        init.xavier_uniform_(self.projection)
        init.normal_(self.codes)
        init.copy_(self.codes, F.normalize(self.codes, dim=-1))

    @classmethod
    def sizes(cls, options: RandomProjectionOptions) -> tuple[int, ...]:
        return (options.size,)

    @without_autocast
    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        latents = F.layer_norm(tokens.to(self.projection.dtype), (self.width,)) @ self.projection
        return F.normalize(at_least_fp32(latents), dim=-1)

    @without_autocast
    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        return nearest_codes(latents.flatten(0, -2), at_least_fp32(self.codes)).view(latents.shape[:-1])

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        return self.decode(token_codes(indices, self.codes))

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    def head_codes(self) -> tuple[Tensor, ...]:
        return (at_least_fp32(self.codes),)

    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
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
        """The codes, with a way back for gradients to the image encoder in training, if one is asked for."""
        return straight_through(latents, codes) if self.training and trains_encoder else codes


# From here on a configuration can name it. Whoever loads a checkpoint with the package registers it before.
register_quantizer("random_projection", RandomProjectionQuantizer)


def build(processor: CBViLAProcessor) -> CBViLAForPreTraining:
    """A small model with random weights: 64-px pictures in 16 patches, two layers per encoder."""
    small: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "initializer_range": 0.08,
    }
    tokenizer = processor.tokenizer
    words = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = CBViLAConfig(
        vision_config={**small, "image_size": 64, "patch_size": 16},
        text_config={**small, **words},
        multimodal_config={"num_hidden_layers": 2},
        quantizer_config={"type": "random_projection", "size": 64, "dim": 16},
        projection_dim=64,
        initializer_range=0.08,
    )
    return CBViLAForPreTraining(config)


def main(arguments: list[str] | None = None) -> None:
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
            burn_in_steps=0.5,  # then MIM begins: its targets are these codes
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
    trainer.save_model()  # the model, and the processor with it

    loaded = CBViLAForPreTraining.from_pretrained(options.output_dir)
    assert torch.equal(loaded.cbvila.quantizer.codes, model.cbvila.quantizer.codes.cpu())
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    names = [name for name in last if name.startswith("loss") or name == "codebook_perplexity"]
    print("  ".join(f"{name}={last[name]:.3f}" for name in names))


if __name__ == "__main__":
    main()
