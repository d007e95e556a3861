"""Image-text matching (ITM, Eq. 5): classifies whether a text belongs to an image, with hard negatives.

Shapes: b local pairs, k negatives of each text and of each image.
"""

from typing import Any, Literal

import torch
from torch import nn

from .losses_cbvila import candidate_ranking_loss, classification_loss, matching_scores
from .negatives_cbvila import itm_labels
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored, TextQuery
from .options_cbvila import options, require_range
from .pair_similarity_cbvila import itm_batch
from .quantizer_cbvila import CBViLAQuantizer


@options
class CBViLAITMOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLAITM`].

    Args:
        weight: Weight of the term.
        negative_source: How training draws negatives unless the caller gives their hardness: with a probability that
            grows with similarity (`"similarity"`, as in the paper), or uniformly (`"uniform"`).
        num_negatives: Negative images of each text, and negative texts of each image. The paper has one; each further
            one costs two fusion passes per pair.
        negative_captions: Whether texts that the data gives as false of an image are further negatives; see
            `negative_input_ids` of the models.
        ranking_weight: Weight of a second term relative to the first, the cross-entropy of a pair among its negatives
            (see [`candidate_ranking_loss`]). Retrieval orders candidates, and this term trains the order.
    """

    negative_source: Literal["similarity", "uniform"] = "similarity"
    num_negatives: int = 1
    negative_captions: bool = True
    ranking_weight: float | int = 0.0

    flat_names = {"itm_weight": "weight", "negative_source": "negative_source"}

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        require_range(where, "num_negatives", self.num_negatives, 1)
        require_range(where, "ranking_weight", self.ranking_weight, 0)


class CBViLAITM(CBViLAObjective):
    """Classifies b true pairs, then k times each text with a negative image, then each image with a negative text.

    Where the data gives texts that are false of the images, each image follows with its own.
    """

    name = "itm"
    options_class = CBViLAITMOptions
    keys_of_0_1 = {r"^itm_head\.": "objectives.itm.head."}
    needs = frozenset({"other_pairs", "hard_negatives"})
    is_default = True

    def __init__(self, options: CBViLAITMOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        self.head = nn.Linear(config.multimodal_config.hidden_size, 2)

    @classmethod
    def loss_weights(cls, options: CBViLAITMOptions) -> dict[str, float]:
        """Returns the weights of classification and, if it is on, of the ranking of candidates."""
        weights = {cls.name: float(options.weight)}
        ranking = float(options.weight) * float(options.ranking_weight)
        return weights | ({f"{cls.name}_ranking": ranking} if ranking > 0 else {})

    def text_queries(self, step: CBViLAStep) -> list[TextQuery]:
        """Returns the (1 + 2k) b pairs to classify, with labels, and b with negative captions if there are any."""
        negatives, processes = step.negatives, None
        if negatives is None:
            processes = step.processes
            hardness, count = self._hardness(step), self.options.num_negatives
            negatives = step.pairs.negatives(hardness, step.negative_seed, count)
        batch = itm_batch(processes, step.images, step.image_index, step.texts, step.attention_mask, negatives)
        labels = itm_labels(*negatives)
        pairs = TextQuery(batch.texts, batch.attention_mask, batch.image_index, batch.fetched_images, labels)
        given = step.negative_texts
        if given is None or not self.options.negative_captions:
            return [pairs]
        false = torch.zeros_like(step.image_index).masked_fill(~given.are_given, -100)
        return [pairs, TextQuery(given.states, given.attention_mask, step.image_index, labels=false)]

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the cross-entropy of matches, and that of pairs among their negatives if it has a weight."""
        logits = self.head(torch.cat([answer.states[:, 0] for answer in answers]))
        labels = torch.cat([answer.query.labels for answer in answers])
        terms = {self.name: Scored(classification_loss(logits, labels), labels != -100, {"itm_logits": logits})}
        if self.options.ranking_weight > 0:
            ranked, scores = answers[0].query.labels, matching_scores(logits)
            loss, counted = candidate_ranking_loss(scores[: len(ranked)], ranked, step.texts.shape[0])
            terms[f"{self.name}_ranking"] = Scored(loss, counted)
        return terms

    def _hardness(self, step: CBViLAStep) -> float | None:
        if not step.training:
            return None  # takes the most similar
        if step.negative_hardness is not None:
            return step.negative_hardness
        return 1.0 if self.options.negative_source == "similarity" else 0.0
