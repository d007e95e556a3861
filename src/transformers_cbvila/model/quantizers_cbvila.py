"""The quantizers that there are. A new one is its file and one line here."""

from .quantizer_cbvila import CBViLAQuantizer
from .quantizer_fsq_cbvila import CBViLAFSQuantizer as CBViLAFSQuantizer
from .quantizer_nearest_cbvila import CBViLANearestQuantizer as CBViLANearestQuantizer
from .quantizer_residual_cbvila import CBViLAResidualQuantizer as CBViLAResidualQuantizer
from .registry_cbvila import classes_by_name, register_class

QUANTIZERS: dict[str, type[CBViLAQuantizer]] = classes_by_name(globals(), CBViLAQuantizer)


def register_quantizer(name: str, cls: type[CBViLAQuantizer]) -> None:
    """Makes a quantizer from outside the package known as `quantizer_config={"type": name}`.

    Its checkpoints load wherever it is registered before.

    Raises:
        ValueError: If it is no quantizer, or another one has the name.
    """
    register_class(QUANTIZERS, name, cls, CBViLAQuantizer)
