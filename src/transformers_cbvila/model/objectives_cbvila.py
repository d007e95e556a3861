"""The objectives that there are. A new one is its file and its name here."""

from .objective_cbvila import CBViLAObjective
from .objective_codebook_cbvila import CBViLACodebookTerm, CBViLACommitmentTerm
from .objective_itc_cbvila import CBViLAITC
from .objective_itm_cbvila import CBViLAITM
from .objective_mim_cbvila import CBViLAMIM
from .objective_mim_cls_bag_cbvila import CBViLAMIMClsBag
from .objective_mlm_cbvila import CBViLAMLM
from .objective_pixel_cbvila import CBViLAPixel
from .registry_cbvila import register_class

# In the order in which a new model draws the weights of their heads.
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
    )
}


def register_objective(name: str, cls: type[CBViLAObjective]) -> None:
    """Makes an objective from outside the package known as `objectives={name: {"weight": 1.0, …}}`.

    Its checkpoints load wherever it is registered before.

    Raises:
        ValueError: If it is no objective, or another one has the name.
    """
    register_class(OBJECTIVES, name, cls, CBViLAObjective)
