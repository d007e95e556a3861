"""Holds the import table of docs/design.md by reading the sources' syntax trees (nothing is imported).

Run on made-up sources too: a checker that finds nothing would pass on anything.
"""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

PACKAGE = "transformers_cbvila"
SOURCES = Path(__file__).parents[1] / "src" / PACKAGE
CONVERSION = Path(__file__).parents[1] / "conversion"  # scripts, which import each other by name

# What each layer's files may import besides the standard library and themselves. The root layer is the small files
# beside the package's __init__.py, which any layer but model/ may use.
MODEL_PACKAGES = {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}
PACKAGES_OF_LAYER = {
    "model": MODEL_PACKAGES,
    "data": MODEL_PACKAGES | {"tokenizers", "datasets", "easy_vqa", "fsspec"},
    "metrics": {"numpy", "torch", "datasets", "evaluate"},
    "retrieval": {"numpy", "torch", "tqdm", "transformers", "datasets"},
    "inspection": {"numpy", "torch", "tqdm", "PIL"},
    "drawing": {"numpy", "torch", "tqdm", "PIL"},
    "explaining": {"numpy", "torch", "tqdm", "transformers"},
    "onnx_runtime": {"numpy", "PIL", "tokenizers"},
    "export": {"numpy", "torch", "transformers"},
    "tasks": {"numpy", "torch", "tqdm", "transformers", "PIL", "datasets"},
    "training": MODEL_PACKAGES | {"accelerate", "safetensors", "datasets", "evaluate", "peft"},
    "pages": {"numpy", "PIL"},
    "hub": MODEL_PACKAGES | {"safetensors", "yaml"},
    "demo": MODEL_PACKAGES | {"accelerate", "safetensors", "datasets", "evaluate", "matplotlib"},
    "app": {"numpy", "torch", "transformers", "PIL"},
    "space": {"huggingface_hub", "packaging"},
    "static_page": {"huggingface_hub", "numpy", "torch"},
    "root": {"torch", "transformers", "packaging"},
    "__init__.py": set(),
    "conversion": MODEL_PACKAGES | {"safetensors", "timm"} | {path.stem for path in CONVERSION.glob("*.py")},
    "cli": MODEL_PACKAGES
    | {"accelerate", "safetensors", "yaml", "datasets", "evaluate", "peft", "timm", "matplotlib"},
}
LAYERS_OF_LAYER = {
    "model": set(),
    "root": {"model"},
    "data": {"root", "model"},
    "metrics": {"root", "model"},
    "retrieval": {"root", "model", "data", "metrics"},
    "inspection": {"root", "model", "data", "metrics", "retrieval"},
    "drawing": {"model", "data", "metrics", "retrieval", "inspection"},
    "explaining": {"model", "data", "inspection"},
    "onnx_runtime": {"root", "model"},
    "export": {"root", "model", "data", "tasks", "onnx_runtime"},
    "tasks": {"root", "model", "data", "metrics", "retrieval"},
    "training": {"root", "model", "data", "retrieval", "inspection", "tasks"},
    "pages": {"model", "retrieval", "inspection", "explaining"},
    "hub": {"root", "model", "tasks", "onnx_runtime"},
    "demo": {"root", "model", "data", "metrics", "tasks", "training", "pages"},
    "app": {"root", "model", "data", "retrieval", "inspection", "drawing", "explaining", "pages"},
    "space": {"root", "model", "app", "hub"},
    "static_page": {"root", "model", "onnx_runtime", "export", "pages", "hub", "app", "space"},
    "__init__.py": {
        "root",
        "model",
        "data",
        "retrieval",
        "explaining",
        "onnx_runtime",
        "export",
        "training",
        "hub",
        "space",
        "static_page",
    },
    "conversion": {"root", "model"},
    "cli": {
        "root",
        "model",
        "data",
        "retrieval",
        "inspection",
        "drawing",
        "explaining",
        "onnx_runtime",
        "export",
        "tasks",
        "training",
        "pages",
        "demo",
        "app",
        "hub",
        "space",
        "static_page",
    },
}
# Optional packages: a top-level import would make the package fail without their extra, and start slowly with it.
GUARDED = {"datasets", "evaluate", "peft", "timm", "torchvision", "easy_vqa", "matplotlib", "faiss", "gradio"} | {
    "onnx",
    "onnxruntime",
    "onnxscript",
}
# evaluate reads a metric script's imports from its first column, so they cannot be guarded.
METRIC_SCRIPT = re.compile(r"metrics/(\w+)/\1\.py")
# How transformers' remote-code loader finds a file's relative imports: anywhere in the text, docstrings included.
LOADER_PATTERN = re.compile(r"^\s*(?:from|import)\s+\.", re.MULTILINE)


def layer_of(path):
    """The layer of a source, from its path relative to the package (with forward slashes)."""
    if path == "__init__.py":
        return path
    if path == "__main__.py":
        return "cli"
    return path.partition("/")[0] if "/" in path else "root"


def imported_names(path, node):
    """The dotted modules that an import statement names; relative ones are resolved within the package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level == 0:
        # `from transformers_cbvila import data` names the layer in its second half.
        return [f"{PACKAGE}.{a.name}" for a in node.names] if node.module == PACKAGE else [node.module]
    folders = [PACKAGE, *path.split("/")[:-1]]
    base = folders[: len(folders) + 1 - node.level]
    return [".".join([*base, node.module])] if node.module else [".".join([*base, a.name]) for a in node.names]


def target_layer(module):
    """The layer of a dotted module of this package, e.g. `transformers_cbvila.data.easy_vqa` is in `data`."""
    first = module.split(".")[1] if "." in module else ""
    if first in LAYERS_OF_LAYER:
        return first
    return "cli" if first == "__main__" else "root"


def module_level_imports(tree):
    """Import statements that run when the file is imported: not in a function, not under `if TYPE_CHECKING`."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)


def violations(path, source):
    """The sentences that say what is wrong with one source; `path` is relative to the package."""
    tree = ast.parse(source)
    layer = layer_of(path)
    if layer not in LAYERS_OF_LAYER:
        return [f"{path}: the folder {layer}/ is no layer of docs/design.md"]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    found = []
    for node in imports:
        for module in imported_names(path, node):
            found += [f"{path}:{node.lineno}: {reason}" for reason in import_violations(layer, module)]
    if not METRIC_SCRIPT.fullmatch(path):
        for node in module_level_imports(tree):
            for module in imported_names(path, node):
                if module.partition(".")[0] in GUARDED:
                    found.append(f"{path}:{node.lineno}: {module} is optional: import it inside a function")
    if layer == "model":
        found += island_violations(path, source, imports)
    return found


def import_violations(layer, module):
    """What the table says against importing `module` from `layer`."""
    package = module.partition(".")[0]
    if package == PACKAGE:
        other = target_layer(module)
        if other not in LAYERS_OF_LAYER[layer] | {layer}:
            yield f"{layer} may not import {other} ({module})"
    elif package not in sys.stdlib_module_names and package not in PACKAGES_OF_LAYER[layer]:
        yield f"{layer} may not import {package}"


def island_violations(path, source, imports):
    """What keeps transformers' remote-code loader from carrying this file of model/ along with published weights."""
    if path.count("/") != 1:
        yield f"{path}: model/ is one flat folder"
    own = []
    for node in imports:
        if isinstance(node, ast.ImportFrom) and node.level:
            own.append(node)
            if node.level != 1 or not node.module or "." in node.module or node.names[0].name == "*":
                yield f"{path}:{node.lineno}: model/ files import each other only as `from .name import Name`"
        elif any(name.partition(".")[0] == PACKAGE for name in imported_names(path, node)):
            yield f"{path}:{node.lineno}: the package is not there when this file travels alone"
    statements = {node.lineno for node in own}
    for match in LOADER_PATTERN.finditer(source):
        line = source.count("\n", 0, match.end()) + 1
        if line not in statements:
            yield f"{path}:{line}: the remote-code loader takes this line of text for an import"


def test_sources_follow_the_import_table():
    sources = sorted(SOURCES.rglob("*.py"))
    assert len(sources) > 10
    found = []
    for source in sources:
        found += violations(source.relative_to(SOURCES).as_posix(), source.read_text(encoding="utf-8"))
    for source in sorted(CONVERSION.glob("*.py")):
        found += violations(f"conversion/{source.name}", source.read_text(encoding="utf-8"))
    assert found == []


def test_import_table_has_no_cycles():
    graphlib.TopologicalSorter(LAYERS_OF_LAYER).prepare()


@pytest.mark.parametrize("layer", sorted(LAYERS_OF_LAYER.keys() - {"root", "__init__.py", "conversion"}))
def test_import_table_names_existing_folders(layer):
    assert (SOURCES / layer / "__init__.py").is_file()


@pytest.mark.parametrize(
    "path, source",
    [
        ("model/a.py", "import torch\nfrom .b import B\nfrom PIL import Image\nimport math, os.path"),
        ("data/a.py", "from transformers_cbvila.model.b import B\nfrom transformers_cbvila.extras import require"),
        ("data/a.py", "from ..model.b import B\nfrom . import c"),
        ("data/a.py", "def load():\n    import datasets"),
        ("data/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from datasets import Dataset"),
        ("metrics/metric/metric.py", "import datasets\nimport evaluate"),
        ("__init__.py", "def __getattr__(name):\n    from transformers_cbvila.training.trainer import T"),
        ("cli/a.py", "from ..demo import report"),
        ("__main__.py", "from transformers_cbvila.cli import main"),
        ("conversion/a.py", "import key_table\nfrom transformers_cbvila import CBViLAModel"),
    ],
)
def test_violations_accepts_allowed_imports(path, source):
    assert violations(path, source) == []


@pytest.mark.parametrize(
    "path, source, complaint",
    [
        ("model/a.py", "import torchvision", "may not import torchvision"),
        ("model/a.py", "def f():\n    import safetensors", "may not import safetensors"),
        ("model/a.py", "from ..data.b import B", "may not import data"),
        ("model/a.py", "from ..extras import require", "may not import root"),
        ("model/a.py", "from . import b", "only as `from .name import Name`"),
        ("model/a.py", "from .b.c import C", "only as `from .name import Name`"),
        ("model/a.py", "from .b import *", "only as `from .name import Name`"),
        ("model/a.py", "from transformers_cbvila.model.b import B", "travels alone"),
        ("model/a.py", '"""Text.\n\n    from .b import B\n"""', "a.py:3: the remote-code loader"),
        ("model/b/a.py", "x = 1", "one flat folder"),
        ("data/a.py", "from transformers_cbvila.training.b import B", "may not import training"),
        ("data/a.py", "from transformers_cbvila import training", "may not import training"),
        ("data/a.py", "import datasets", "is optional"),
        ("data/a.py", "try:\n    import datasets\nexcept ImportError:\n    pass", "is optional"),
        ("data/a.py", "if True:\n    from datasets import Dataset", "is optional"),
        ("data/a.py", "class A:\n    import datasets", "is optional"),
        ("data/a.py", "import pandas", "may not import pandas"),
        ("tasks/a.py", "from transformers_cbvila.training.b import B", "may not import training"),
        ("metrics/metric/other.py", "import evaluate", "is optional"),
        ("metrics/a.py", "from ..retrieval.b import B", "may not import retrieval"),
        ("retrieval/a.py", "from ..tasks.b import B", "may not import tasks"),
        ("inspection/a.py", "from ..tasks.b import B", "may not import tasks"),
        ("training/a.py", "from transformers_cbvila.cli import main", "may not import cli"),
        ("training/a.py", "from ..demo.report import write_report", "may not import demo"),
        ("pages/a.py", "from ..training.trainer import T", "may not import training"),
        ("tasks/a.py", "from ..inspection.b import B", "may not import inspection"),
        ("inspection/a.py", "from ..pages.document import png", "may not import pages"),
        ("pages/a.py", "import torch", "may not import torch"),
        ("onnx_runtime/a.py", "import torch", "may not import torch"),
        ("conversion/a.py", "from transformers_cbvila.training.trainer import T", "may not import training"),
        ("conversion/a.py", "import timm", "is optional"),
        ("model/a.py", "import key_table", "may not import key_table"),
        ("extras.py", "from transformers_cbvila.cli import main", "may not import cli"),
        ("extras.py", "from .training.trainer import T", "may not import training"),
        ("__init__.py", "from .demo.report import R", "may not import demo"),
        ("extras.py", "from transformers_cbvila.__main__ import main", "may not import cli"),
        ("app/a.py", "from ..space.publishing import publish_space", "may not import space"),
        ("hub/a.py", "from ..training.runs.run_record import run_record", "may not import training"),
        ("other/a.py", "x = 1", "no layer"),
    ],
)
def test_violations_finds_forbidden_imports(path, source, complaint):
    assert [sentence for sentence in violations(path, source) if complaint in sentence]


@pytest.mark.parametrize("folder", ["src", "conversion", "studies", "benchmarks"])
def test_sources_replace_files_instead_of_renaming(folder):
    """`Path.rename` and `os.rename` fail on Windows where the target exists."""
    sources = list((SOURCES.parents[1] / folder).rglob("*.py"))
    assert sources
    calls = [
        f"{source}:{node.lineno}"
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rename"
    ]
    assert calls == []


def test_files_do_not_import_each_other():
    """What several test files share is in a helper module beside them, so that each can be moved or read alone."""
    folder = Path(__file__).parent
    test_files = sorted(folder.rglob("test_*.py"))
    names = {path.stem for path in test_files}
    assert Path(__file__).stem in names
    imports = {
        f"{path.relative_to(folder)}:{node.lineno}": module
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in imported_names("", node)
        if module.rpartition(".")[2] in names or module.partition(".")[0] == folder.name
    }
    assert imports == {}


def test_files_have_unique_names():
    """Their names alone tell them apart for pytest, in whatever folder they are."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
