"""Writes classes that were registered from outside the package as files to publish with weights.

transformers' remote-code loader follows only `from .name import Name`. Such a class therefore becomes a file beside
those of model/: the class and the statements of its module that it needs. The published copy of
`quantizers_cbvila.py`, `objectives_cbvila.py` or `projectors_cbvila.py` imports and registers it.
"""

import ast
import inspect
import symtable
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NoReturn

import transformers_cbvila

from ..model import objectives_cbvila, projectors_cbvila, quantizers_cbvila
from ..model.nested_options_cbvila import DEFAULT_QUANTIZER
from ..model.registry_cbvila import find_registered
from ..model.remote_code_cbvila import code_files

_PACKAGE = transformers_cbvila.__name__
_MODEL = f"{_PACKAGE}.model"
_REGISTRIES = {"quantizer": quantizers_cbvila, "objective": objectives_cbvila, "projector": projectors_cbvila}
_OWN = "copy what is needed from there into the file of the class"


@dataclass(frozen=True)
class OutsideClass:
    """A class that a checkpoint needs and that is not part of the package.

    Args:
        kind: `"quantizer"`, `"objective"` or `"projector"`.
        name: The name under which it is registered.
        cls: The class.
    """

    kind: str
    name: str
    cls: type

    @property
    def module(self) -> str:
        """The name of its file, without extension."""
        return f"{self.kind}_{self.name}_cbvila"

    def refuse(self, why: str) -> NoReturn:
        """Raises the ValueError for a class that cannot be published."""
        raise ValueError(
            f"The {self.kind} {self.name!r} ({self.cls.__name__} of {self.cls.__module__}) cannot be published: {why}"
        )


def outside_classes(config: Mapping[str, Any]) -> list[OutsideClass]:
    """Returns the classes from outside the package that a config.json names.

    Raises:
        ValueError: If a name is not registered.
    """
    quantizer = _mapping(config.get("quantizer_config")).get("type", DEFAULT_QUANTIZER)
    projector = _mapping(config.get("projector_config")).get("type", projectors_cbvila.DEFAULT_PROJECTOR)
    quantizers, objectives = quantizers_cbvila.QUANTIZERS, objectives_cbvila.OBJECTIVES
    found = [
        OutsideClass("quantizer", quantizer, find_registered(quantizers, quantizer, "quantizer_config: type")),
        OutsideClass(
            "projector", projector, find_registered(projectors_cbvila.PROJECTORS, projector, "projector_config: type")
        ),
        *(
            OutsideClass("objective", name, find_registered(objectives, name, "objectives: the name"))
            for name in _mapping(config.get("objectives"))
        ),
    ]
    return [each for each in found if each.cls.__module__.rpartition(".")[0] != _MODEL]


def outside_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the files, by name, that a repository needs in addition to the package's code, or instead of its files.

    Raises:
        ValueError: If a class that config.json names is not registered, or cannot be published.
    """
    files: dict[str, str] = {}
    names = {path.name for path in code_files()}
    for found in outside_classes(config):
        file = f"{found.module}.py"
        if file in names:
            found.refuse(f"its file would be {file}, which the package has; register it under another name")
        files[file] = _file_of(found)
        path = Path(inspect.getfile(_REGISTRIES[found.kind]))
        files[path.name] = files.get(path.name, path.read_text(encoding="utf-8")) + _registration(found)
    return files


def _registration(found: OutsideClass) -> str:
    """Returns what to append to the registry's file, at its end because the class may import from it."""
    cls = found.cls.__name__
    return f'\n\nfrom .{found.module} import {cls}  # noqa: E402\n\nregister_{found.kind}("{found.name}", {cls})\n'


def _file_of(found: OutsideClass) -> str:
    if "." in found.cls.__qualname__:
        found.refuse("it is defined inside a function or another class; define it at the top level of a file")
    try:
        text = inspect.getsource(sys.modules[found.cls.__module__])
    except (KeyError, OSError, TypeError):
        found.refuse("its source was not found, as in a notebook; write it into a .py file, and import it from there")
    head = f'"""The {found.kind} {found.name!r}, as its author published it with these weights."""\n'
    return "\n".join([head, *_needed_statements(found, text)]) + "\n"


def _needed_statements(found: OutsideClass, text: str) -> Iterator[str]:
    """Yields the statements of a module that its class needs, in order, with imports rewritten for the repository."""
    statements = [node for node in ast.parse(text).body if not _is_main(node)]
    lines = text.splitlines()
    sources = [_source(node, lines) for node in statements]
    places: dict[str, list[int]] = defaultdict(list)
    for place, (node, source) in enumerate(zip(statements, sources, strict=True)):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            found.refuse(f"its file has `{ast.unparse(node)}`; name what it imports")
        for name in _bound_names(source):
            places[name].append(place)
    kept, seen, pending = set(), set(), [found.cls.__name__]
    while pending:
        name = pending.pop()
        new = [] if name in seen else [place for place in places[name] if place not in kept]
        seen.add(name)
        kept |= set(new)
        for place in new:
            if not isinstance(statements[place], ast.Import | ast.ImportFrom):  # of imports only the used names stay
                pending += _used_names(statements[place], sources[place])
    for place, (node, source) in enumerate(zip(statements, sources, strict=True)):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield source
        elif place in kept and isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in seen]
            yield "\n".join(_imports(found, node))
        elif place in kept:
            definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
            yield ("\n\n" if definition else "") + _with_imports_rewritten(found, node, source)


def _is_main(node: ast.stmt) -> bool:
    """Returns whether it is `if __name__ == "__main__":`, which belongs to a script and is not published."""
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _source(node: ast.stmt, lines: list[str]) -> str:
    """Returns a statement with its decorators and the comments directly above."""
    first = _first_line(node)
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    return "\n".join(lines[first - 1 : _last_line(node)])


def _first_line(node: Any) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _last_line(node: ast.stmt) -> int:
    assert node.end_lineno is not None  # ast.parse sets it
    return node.end_lineno


def _bound_names(source: str) -> list[str]:
    """Returns the names that a top-level statement binds."""
    table = symtable.symtable(source, "<source>", "exec")
    return [symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()]


def _used_names(node: ast.stmt, source: str) -> set[str]:
    """Returns the module-level names that a statement uses, also inside functions and in string annotations."""
    used, tables = set(), [symtable.symtable(source, "<source>", "exec")]
    while tables:
        table = tables.pop()
        is_module = table.get_type() == "module"
        used |= {symbol.get_name() for symbol in table.get_symbols() if is_module or symbol.is_global()}
        tables += table.get_children()
    for part in ast.walk(node):
        for field in ("annotation", "returns"):
            for quoted in ast.walk(getattr(part, field, None) or ast.Pass()):
                if isinstance(quoted, ast.Constant) and isinstance(quoted.value, str):
                    used |= _names_in_quotes(quoted.value)
    return used


def _names_in_quotes(annotation: str) -> set[str]:
    try:
        tree = ast.parse(annotation, mode="eval")
    except SyntaxError:  # a string of a Literal, say
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _with_imports_rewritten(found: OutsideClass, node: ast.stmt, source: str) -> str:
    """Returns a statement with its inner imports, such as those of a function, rewritten for the repository."""
    lines = source.splitlines()
    offset = _last_line(node) - len(lines) + 1  # the number of its first line in the file
    inner = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
    for part in sorted(inner, key=lambda part: -part.lineno):
        indent = " " * part.col_offset
        first, last = part.lineno - offset, _last_line(part) - offset
        lines[first : last + 1] = [indent + line for line in _imports(found, part)]
    return "\n".join(lines)


def _imports(found: OutsideClass, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Returns the import lines for the repository.

    Raises:
        ValueError: If the import does not work there.
    """
    shown = f"`{ast.unparse(node)}`"
    if isinstance(node, ast.Import):
        for alias in node.names:
            root = alias.name.partition(".")[0]
            if root == _PACKAGE:
                found.refuse(f"it uses {shown}; import the names themselves: from {_PACKAGE} import CBViLAQuantizer")
            _require_installed(found, root, shown)
        return [ast.unparse(node)]
    module = node.module or ""
    if node.level:
        found.refuse(f"it uses {shown}, a file that is not published with it; {_OWN}")
    if module.partition(".")[0] != _PACKAGE:
        _require_installed(found, module.partition(".")[0], shown)
        return [ast.unparse(node)]
    names: dict[str, list[str]] = defaultdict(list)
    for alias in node.names:
        names[_model_file(found, module, alias.name, shown)].append(ast.unparse(alias))
    return [f"from .{file} import {', '.join(own)}" for file, own in names.items()]


def _model_file(found: OutsideClass, module: str, name: str, shown: str) -> str:
    """Returns the file of model/ that a name of the package is in."""
    if module == _PACKAGE:
        module = getattr(getattr(transformers_cbvila, name, None), "__module__", module)
    folder, _, file = module.rpartition(".")
    if folder != _MODEL or f"{file}.py" not in {path.name for path in code_files()}:
        found.refuse(f"it uses {shown}, and only names of {_MODEL}.* are published with weights; do without {name}")
    return file


def _require_installed(found: OutsideClass, root: str, shown: str) -> None:
    if root not in sys.stdlib_module_names and root not in packages_distributions():
        found.refuse(f"it uses {shown}, which is not an installed package; {_OWN}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
