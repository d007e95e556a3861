"""Which of many drawings match their caption best: those that a direct pass through the model scores highest."""

import pytest
import torch
from tiny import pretraining_model, tiny_processor

from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.drawing.from_captions import draw_captions
from transformers_cbvila.drawing.reranking import best_matching
from transformers_cbvila.retrieval.encoding import pixel_values_of, tokens_of


def test_the_best_are_those_with_the_highest_log_odds():
    model, processor = pretraining_model().eval(), tiny_processor()
    captions = ["red left", "blue"]
    drawn = draw_captions(model, processor, captions, 5, progress=False, num_steps=2)
    drawn[1] = drawn[1][:3]  # one caption may have fewer
    found = best_matching(model, processor, captions, drawn, keep=4, progress=False)
    for pictures, caption, numbers in zip(drawn, captions, found, strict=True):
        tokens, mask = tokens_of(model, processor, [caption] * len(pictures))
        with torch.no_grad():
            states = model.cbvila(pixel_values_of(model, processor, pictures), tokens, mask).last_hidden_state
            wrong, right = model.objectives["itm"].head(states[:, 0]).unbind(-1)
        assert numbers == (right - wrong).argsort(descending=True)[:4].tolist()


def test_of_true_scenes_the_one_that_the_caption_tells_of_is_the_best():
    from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, bundled_checkpoint

    folder = bundled_checkpoint("cbvila-scenes")
    model, processor = CBViLAForPreTraining.from_pretrained(folder).eval(), CBViLAProcessor.from_pretrained(folder)
    rows = load_pairs("scenes[rows=12]", "confusers")  # three groups of an image and three that differ little
    images = [row["image"] for row in rows]
    captions = [row["captions"][0] for row in rows]
    groups = [images[number - number % 4 : number - number % 4 + 4] for number in range(12)]
    found = best_matching(model, processor, captions, groups, progress=False)
    assert [numbers[0] for numbers in found] == [number % 4 for number in range(12)]


@pytest.mark.parametrize("drawn", [[], [[]]])
def test_captions_without_drawings_are_refused(drawn):
    with pytest.raises(ValueError, match="1 captions, drawings of each: .*give drawings for every caption"):
        best_matching(pretraining_model(), tiny_processor(), ["red"], drawn)


def test_a_model_without_matching_is_refused():
    model = pretraining_model(objectives={"itm": {"weight": 0}})
    with pytest.raises(ValueError, match="trained without matching .*such as cbvila-scenes"):
        best_matching(model, tiny_processor(), ["red"], [[None]])
