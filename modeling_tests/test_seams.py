"""A quantizer, an objective or a projector is one file: its options and the names of its terms are nowhere else.

Held by reading the sources' syntax trees; checked on made-up sources too.
"""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from transformers_cbvila.model.configuration_cbvila import PRESETS
from transformers_cbvila.model.nested_options_cbvila import FLAT_NAMES
from transformers_cbvila.model.objectives_cbvila import OBJECTIVES
from transformers_cbvila.model.projectors_cbvila import PROJECTORS
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

SOURCES = Path(__file__).parents[1] / "src" / "transformers_cbvila"
# "codebook" is also used elsewhere: of a tower's learning rate, of a fact about a checkpoint.
TERMS = set(OBJECTIVES) - {"codebook"}
COMMON_OPTIONS = {"type", "weight", "feature_layers"}  # of the base classes
# The ways to a configuration's options, as attributes.
OWNERS = {"quantizer_config", "objectives", "projector_config", "options"}
# What other objectives share by contract (`CBViLAConfig.trains_encoder`, `masks_before_encoder`).
SHARED = {"grad_to_vit", "mask_stage"}


def own_file(cls):
    return cls.__module__.rpartition(".")[2] + ".py"


def options_of_kinds():
    """Options of each quantizer, objective and projector by their file."""
    kinds = [*QUANTIZERS.values(), *OBJECTIVES.values(), *PROJECTORS.values()]
    return {own_file(cls): {field.name for field in fields(cls.options_class)} - COMMON_OPTIONS for cls in kinds}


def docstrings(tree):
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }


def strings(tree):
    skipped = docstrings(tree)
    return [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in skipped]


def terms_named(source):
    """Names of loss terms among a source's strings, but not in its docstrings."""
    return [(node.lineno, node.value) for node in strings(ast.parse(source)) if node.value in TERMS]


def flat_names_read(source):
    """Flat names of version 0.1 that a source reads, as attributes or as strings."""
    tree = ast.parse(source)
    attributes = [(n.lineno, n.attr) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in FLAT_NAMES]
    return attributes + [(n.lineno, n.value) for n in strings(tree) if n.value in FLAT_NAMES]


def options_read(source, options):
    """Options that a source reads through a configuration, such as `config.quantizer_config.update`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in options - SHARED:
            owner = node.value
            if isinstance(owner, ast.Subscript):  # `config.objectives[name]`, and not a model's objective
                owner = owner.value
                if _name(getattr(owner, "value", None)) != "config":
                    continue
            if _name(owner) in OWNERS:
                found.append((node.lineno, node.attr))
    return found


def _name(node):
    """The last part of a dotted name."""
    return getattr(node, "attr", getattr(node, "id", None))


def sources():
    return sorted(path for path in SOURCES.rglob("*.py"))


def all_found(check):
    return [f"{path.relative_to(SOURCES)}:{line}: {name}" for path in sources() for line, name in check(path)]


def test_terms_are_named_in_their_objective_file_only():
    def check(path):
        own = {cls.name for cls in OBJECTIVES.values() if own_file(cls) == path.name}
        # a quantizer names its own terms by the objective that weighs them
        quantizer = {"commitment"} if path.name.startswith("quantizer_") else set()
        allowed = own | quantizer | set(PRESETS)  # a preset may have the name of its objective
        return [(line, name) for line, name in terms_named(path.read_text()) if name not in allowed]

    assert all_found(check) == []


def test_flat_names_are_read_in_their_file_only():
    def check(path):
        kinds = [cls for cls in (*QUANTIZERS.values(), *OBJECTIVES.values()) if own_file(cls) == path.name]
        flat = {name for cls in kinds for name in cls.options_class.flat_names}
        heads = {"mim_head"}  # also a module in names of old checkpoints
        theirs = {"codebook_size"} if path.name == "image_tokenizers.py" else set()  # of vector-quantize-pytorch
        return [(line, name) for line, name in flat_names_read(path.read_text()) if name not in flat | heads | theirs]

    assert all_found(check) == []


def test_options_are_read_in_their_file_only():
    kinds = options_of_kinds()

    def check(path):
        if path.is_relative_to(SOURCES / "data"):
            return []  # which sees no configuration: its `options` are those of a source
        # The head that draws images is of pixels and of hidden codes, and asks both objectives how they were trained.
        own = set() if path.name != "modeling_cbvila_reconstruction.py" else kinds["objective_pixel_cbvila.py"]
        others = {option for file, options in kinds.items() if file != path.name for option in options}
        return options_read(path.read_text(), others - own - kinds.get(path.name, set()))

    assert all_found(check) == []


@pytest.mark.parametrize(
    ("check", "source", "expected"),
    [
        (terms_named, "weights['mim'] > 0", ["mim"]),
        (terms_named, '"""mim"""\nx = 1', []),
        (flat_names_read, "if config.codebook_update == 'ema': pass", ["codebook_update"]),
        (flat_names_read, "getattr(config, 'mim_weight')", ["mim_weight"]),
        (lambda s: options_read(s, {"update"}), "if config.quantizer_config.update == 'ema': pass", ["update"]),
        (lambda s: options_read(s, {"head"}), "config.objectives['mim'].head", ["head"]),
        (lambda s: options_read(s, {"head"}), "self.head(x)", []),
    ],
)
def test_seam_checks_find_violations(check, source, expected):
    assert [name for _, name in check(source)] == expected
