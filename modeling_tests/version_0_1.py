"""Checkpoints as version 0.1 wrote them, with its names of weights and options."""

import json
import re

from safetensors.torch import save_file

# What version 0.1 called a weight, from what it is called now.
NAMES_OF_0_1 = {
    r"^(cbvila\.)?quantizer\.table\.": r"\1codebook.",
    r"^(cbvila\.)?quantizer\.gumbel\.scale$": r"\1codebook.gumbel_scale",
    r"^objectives\.mim_cls_bag\.head\.": "mim_cls_head.",
    r"^objectives\.(\w+)\.head\.": r"\1_head.",
}
# What it called an option, from where it is now: part of the configuration, objective, option.
FIELDS_OF_0_1 = {
    **{f"codebook_{name}": ("quantizer_config", name) for name in ("size", "dim", "norm", "update", "decay")},
    "quantizer_gradient": ("quantizer_config", "gradient"),
    "gumbel_temperature": ("quantizer_config", "temperature"),
    **{
        f"{name}_weight": ("objectives", name, "weight")
        for name in ("mlm", "itm", "pixel", "codebook", "commitment", "mim", "itc", "mim_cls_bag")
    },
    **{f"mim_{name}": ("objectives", "mim", name) for name in ("head", "grad_to_vit", "mask_stage")},
    **{
        f"pixel_{name}": ("objectives", "pixel", name)
        for name in ("on", "likelihood", "reduction", "sigma", "grad_to_vit")
    },
    "norm_pix_loss": ("objectives", "pixel", "normalize"),
    "negative_source": ("objectives", "itm", "negative_source"),
}


def in_names_of_0_1(weights):
    """The weights as version 0.1 saved them."""
    renamed = {}
    for name, value in weights.items():
        pattern = next((pattern for pattern in NAMES_OF_0_1 if re.search(pattern, name)), "^")
        renamed[re.sub(pattern, NAMES_OF_0_1.get(pattern, ""), name)] = value
    return renamed


def in_fields_of_0_1(fields):
    """A configuration's dictionary as version 0.1 saved it."""
    fields = {**fields, "fusion_config": fields["multimodal_config"]}
    fields["objectives"] = {"mim_cls_bag": {"weight": 0.0}} | fields["objectives"]
    for old, path in FIELDS_OF_0_1.items():
        fields[old] = fields
        for name in path:
            fields[old] = fields[old][name]
    return {name: fields[name] for name in fields.keys() - {"quantizer_config", "objectives", "multimodal_config"}}


def save_as_0_1(model, folder):
    """Saves a model with the names that version 0.1 had for weights and options."""
    model.save_pretrained(folder)
    shared = model.all_tied_weights_keys  # which a file holds once
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name not in shared}
    save_file(in_names_of_0_1(weights), folder / "model.safetensors", metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(json.dumps(in_fields_of_0_1(json.loads(config.read_text()))))
