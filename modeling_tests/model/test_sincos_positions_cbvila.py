"""Position embeddings by sine and cosine: values by hand, order of patches, and what they change in a model."""

import math

import pytest
import torch
from tiny import tiny_config

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.model.sincos_positions_cbvila import sincos_positions

POSITIONS = "cbvila.vision_model.embeddings.position_embeddings"


def test_sincos_positions_by_hand():
    """Width 8: of row and column sine and cosine with the frequencies 1 and 1/10."""
    found = sincos_positions((2, 3), 8)
    assert found.shape == (6, 8)
    row, column = 1, 2
    expected = [f(place * w) for place in (row, column) for f in (math.sin, math.cos) for w in (1.0, 0.1)]
    torch.testing.assert_close(found[row * 3 + column], torch.tensor(expected))


def test_sincos_positions_of_near_patches_are_similar_and_say_their_column():
    found = sincos_positions((4, 4), 128)
    similarity = found @ found.T
    assert (similarity.argmax(1) == torch.arange(16)).all()
    assert similarity[0, 1] > similarity[0, 2] > similarity[0, 3]
    columns = torch.arange(16.0) % 4
    solution = torch.linalg.lstsq(torch.cat([found, torch.ones(16, 1)], 1), columns.unsqueeze(1), driver="gelsd")[0]
    fitted = torch.cat([found, torch.ones(16, 1)], 1) @ solution
    torch.testing.assert_close(fitted[:, 0], columns, atol=1e-3, rtol=0)


def test_sincos_positions_are_where_training_starts_and_nothing_else_changes(tmp_path):
    torch.manual_seed(0)
    random = CBViLAForPreTraining(tiny_config())
    torch.manual_seed(0)
    model = CBViLAForPreTraining(tiny_config(vision={"position_embedding_init": "sincos"}))
    weights, others = model.state_dict(), random.state_dict()
    config = model.config.vision_config
    side = config.image_size // config.patch_size
    torch.testing.assert_close(weights[POSITIONS][0, 1:], sincos_positions((side, side), config.hidden_size))
    for name, value in others.items():
        assert (name == POSITIONS) != torch.equal(value, weights[name]), name
    assert torch.equal(weights[POSITIONS][0, 0], others[POSITIONS][0, 0])
    assert model.cbvila.vision_model.embeddings.position_embeddings.requires_grad
    with torch.no_grad():
        model.cbvila.vision_model.embeddings.position_embeddings.add_(1.0)
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict()[POSITIONS], weights[POSITIONS])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"position_embedding_init": "sine"}, "position_embedding_init='sine'; give 'normal' or 'sincos'"),
        (
            {"position_embedding_init": "sincos", "hidden_size": 30, "num_attention_heads": 2},
            "30 is not a multiple of 4",
        ),
    ],
)
def test_sincos_positions_reject_bad_options(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(vision=fields)
