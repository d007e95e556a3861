"""The registry of quantizers. A new one takes a file of its own and one import here."""

from .quantizer_adaptive_cbvila import CBViLAAdaptiveQuantizer as CBViLAAdaptiveQuantizer
from .quantizer_cbvila import CBViLAQuantizer
from .quantizer_class_guided_cbvila import CBViLAClassGuidedQuantizer as CBViLAClassGuidedQuantizer
from .quantizer_fsq_cbvila import CBViLAFSQuantizer as CBViLAFSQuantizer
from .quantizer_nearest_cbvila import CBViLANearestQuantizer as CBViLANearestQuantizer
from .quantizer_residual_cbvila import CBViLAResidualQuantizer as CBViLAResidualQuantizer
from .registry_cbvila import classes_by_name, register_class

QUANTIZERS: dict[str, type[CBViLAQuantizer]] = classes_by_name(globals(), CBViLAQuantizer)


def register_quantizer(name: str, cls: type[CBViLAQuantizer]) -> None:
    """Registers a quantizer from outside the package, for `quantizer_config={"type": name}`.

    Register it before loading a checkpoint that uses it.

    Args:
        name: Its name, an identifier.
        cls: Its class.

    Raises:
        ValueError: If the class is no quantizer, or another one has the name.
    """
    register_class(QUANTIZERS, name, cls, CBViLAQuantizer)
