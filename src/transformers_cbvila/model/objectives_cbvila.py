"""The registry of objectives. A new one takes a file of its own and an entry here."""

from .objective_cbvila import CBViLAObjective
from .objective_codebook_cbvila import CBViLACodebookTerm, CBViLACommitmentTerm
from .objective_codis_cbvila import CBViLACODIS
from .objective_itc_cbvila import CBViLAITC
from .objective_itm_cbvila import CBViLAITM
from .objective_lgvq_cbvila import CBViLALGVQ
from .objective_mim_cbvila import CBViLAMIM
from .objective_mim_cls_bag_cbvila import CBViLAMIMClsBag
from .objective_mlm_cbvila import CBViLAMLM
from .objective_pixel_cbvila import CBViLAPixel
from .objective_raq_cbvila import CBViLARAQ
from .objective_sgc_consistency_cbvila import CBViLASGCConsistency
from .registry_cbvila import register_class

# The order in which a new model initializes their heads.
OBJECTIVES: dict[str, type[CBViLAObjective]] = {
    cls.name: cls
    for cls in (
        CBViLAMLM,
        CBViLAITM,
        CBViLAPixel,
        CBViLACodebookTerm,
        CBViLACommitmentTerm,
        CBViLAMIM,
        CBViLAITC,
        CBViLAMIMClsBag,
        CBViLARAQ,
        CBViLALGVQ,
        CBViLASGCConsistency,
        CBViLACODIS,
    )
}


def register_objective(name: str, cls: type[CBViLAObjective]) -> None:
    """Registers an objective from outside the package, for `objectives={name: {"weight": 1.0, …}}`.

    Register it before loading a checkpoint that uses it.

    Args:
        name: Its name, an identifier.
        cls: Its class.

    Raises:
        ValueError: If the class is no objective, lacks a method, takes other arguments than its base, or another one
            has the name.
    """
    register_class(OBJECTIVES, name, cls, CBViLAObjective)
