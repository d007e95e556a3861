"""The registry of quantizers. A new one takes a file of its own and one import here."""

from typing import Any

from .quantizer_adaptive_cbvila import CBViLAAdaptiveQuantizer as CBViLAAdaptiveQuantizer
from .quantizer_cbvila import CBViLAQuantizer
from .quantizer_class_guided_cbvila import CBViLAClassGuidedQuantizer as CBViLAClassGuidedQuantizer
from .quantizer_fsq_cbvila import CBViLAFSQuantizer as CBViLAFSQuantizer
from .quantizer_nearest_cbvila import CBViLANearestQuantizer as CBViLANearestQuantizer
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients
from .quantizer_residual_cbvila import CBViLAResidualQuantizer as CBViLAResidualQuantizer
from .registry_cbvila import classes_by_name, register_class

QUANTIZERS: dict[str, type[CBViLAQuantizer]] = classes_by_name(globals(), CBViLAQuantizer)


def build_quantizer(config: Any, gradients: CBViLAGradients = DEFAULT_GRADIENTS) -> CBViLAQuantizer:
    """Returns the quantizer of a configuration with a `vision_config` and a `quantizer_config`.

    Args:
        config: The configuration.
        gradients: Which outputs train the image encoder.
    """
    options = config.quantizer_config
    return QUANTIZERS[options.type](options, config.vision_config.hidden_size, gradients)


def register_quantizer(name: str, cls: type[CBViLAQuantizer]) -> None:
    """Registers a quantizer from outside the package, for `quantizer_config={"type": name}`.

    Register it before loading a checkpoint that uses it.

    Args:
        name: Its name, an identifier.
        cls: Its class.

    Raises:
        ValueError: If the class is no quantizer, lacks a method, takes other arguments than its base, or another one
            has the name.
    """
    register_class(QUANTIZERS, name, cls, CBViLAQuantizer)
