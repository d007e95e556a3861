"""Small models with the quantizers, objectives and presets of other papers, by name."""

from tiny import pretraining_model, tiny_config

GUIDED = {"type": "class_guided", "size": 16, "dim": 8}
RELATIVES = {
    "adaptive": {"quantizer_config": {"type": "adaptive", "tables": [[8, 8], [16, 4]]}},
    "raq": {"objectives": {"raq": {}}},
    "lgvq": {"objectives": {"lgvq": {}}},
    "class_guided": {"quantizer_config": GUIDED, "objectives": {"sgc_consistency": {}}},
    "soft targets": {"objectives": {"itc": {"targets": "soft"}}},
    "as in the blog": {"objectives": {"itc": {"targets": "soft", "compat": "blog"}}},
    "albef": {"preset": "albef"},
    "codis": {"preset": "codis", "objectives": {"codis": {"num_codes": 4}}},
}


def model_of(name):
    """A pretraining model in evaluation mode."""
    fields = RELATIVES[name]
    config = tiny_config(fields.get("preset", "recommended"))
    config.quantizer_config = fields.get("quantizer_config", config.quantizer_config)
    config.objectives = {**config.objectives, **fields.get("objectives", {})}
    return pretraining_model(config)
