"""Every quantizer, objective and preset of another paper is published, and loaded by name without this package."""

import json

import pytest
from publishable import in_another_process
from tiny import tiny_processor
from tiny_relatives import RELATIVES, model_of

from transformers_cbvila.hub.publishing import publish

LOADED = """
import json
from transformers import AutoModelForPreTraining
model = AutoModelForPreTraining.from_pretrained("org/tiny", trust_remote_code=True)
quantizer = model.cbvila.quantizer.name if model.cbvila.has_quantizer else None
print(json.dumps([sorted(model.objectives), quantizer, model.num_parameters()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", RELATIVES)
def test_published_relative_loads_by_name_without_the_package(name, hub, api, facts, tmp_path):
    """`publish` itself compares all outputs there with those of the original."""
    model = model_of(name)
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    publish(tmp_path / "model", "org/tiny", facts=facts, api=api)
    found = json.loads(in_another_process(LOADED, hub, tmp_path, without_package=True).splitlines()[-1])
    quantizer = model.cbvila.quantizer.name if model.cbvila.has_quantizer else None
    assert found == [sorted(model.objectives), quantizer, model.num_parameters()]
    chosen = RELATIVES[name]
    assert set(chosen.get("objectives", {})) <= set(model.objectives)
    assert quantizer == chosen.get("quantizer_config", {"type": None if "preset" in chosen else "nearest"})["type"]
