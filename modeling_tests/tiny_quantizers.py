"""Small quantizers that are fitted to tokens, for tests that several of them share."""

import torch
from tiny import PATCHES, pretraining_model, tiny_config
from torch import nn
from transformers import set_seed

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.quantizer_cbvila import CBViLAQuantizer
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAGradients
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

WIDTH = 32
BOTH = CBViLAGradients(True, True)


def visual_tokens(batch: int = 4, seed: int = 0) -> torch.Tensor:
    """Tokens (batch, N, D)."""
    return torch.randn(batch, PATCHES, WIDTH, generator=generator_for(seed))


def tiny_quantizer(options: dict, gradients: CBViLAGradients = BOTH) -> CBViLAQuantizer:
    """A quantizer with `quantizer_config=options`, fitted and in training mode."""
    set_seed(0)
    quantizer_class = QUANTIZERS[options["type"]]
    quantizer = quantizer_class(quantizer_class.options_class.build(options, "quantizer_config"), WIDTH, gradients)
    initialize(quantizer)
    quantizer.fit(latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1), 1.0)
    return quantizer.train()


def initialize(quantizer: nn.Module) -> None:
    with torch.no_grad():
        for module in quantizer.modules():
            if hasattr(module, "init_own_weights"):
                module.init_own_weights(0.1)


def latents_of(quantizer: CBViLAQuantizer, tokens: torch.Tensor) -> torch.Tensor:
    """Latents (M, C) of tokens (B, N, D)."""
    return quantizer.encode(tokens).flatten(0, 1).detach()


def fitted_model(options: dict, **fields) -> CBViLAForPreTraining:
    """A pretraining model with `quantizer_config=options`, its codes fitted, in evaluation mode."""
    config = tiny_config(**fields)
    config.quantizer_config = options
    model = pretraining_model(config)
    quantizer = model.cbvila.quantizer
    quantizer.fit(latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1), 1.0)
    return model
