"""Terms of Eq. 3 that the quantizer computes: they move codes and latents towards each other."""

from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options


class CBViLAQuantizerTerm(CBViLAObjective):
    """A loss term of the quantizer; absent with quantizers that do not compute it."""

    needs = frozenset({"quantizer"})
    is_default = True

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Returns the quantizer's term of this name, if there is one."""
        terms = (step.quantized and step.quantized.terms) or {}
        return {self.name: Scored(terms[self.name])} if self.name in terms else {}


@options
class CBViLACodebookOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLACodebookTerm`].

    Args:
        weight: Weight of the term.
    """

    flat_names = {"codebook_weight": "weight"}
    presets = {"albef": {"weight": 0.0}, "codis": {"weight": 0.0}}


class CBViLACodebookTerm(CBViLAQuantizerTerm):
    """Second term of Eq. 3, which moves the chosen codes to the latents. Absent where codes are moving averages."""

    name = "codebook"
    options_class = CBViLACodebookOptions


@options
class CBViLACommitmentOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLACommitmentTerm`].

    Args:
        weight: Weight of the term, β of Eq. 3.
    """

    flat_names = {"commitment_weight": "weight"}
    presets = {"paper": {"weight": 0.25}, "albef": {"weight": 0.0}, "codis": {"weight": 0.0}}


class CBViLACommitmentTerm(CBViLAQuantizerTerm):
    """Third term of Eq. 3, which moves the latents to the chosen codes."""

    name = "commitment"
    options_class = CBViLACommitmentOptions
