"""The order of the packages: which may import which, and no circles between modules."""

import ast
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("pcnn_train", "classify", "generate", "evaluate", "sweep", "app")
MAY_IMPORT = {"utils": set(), "layers": {"utils"}, "model": {"utils", "layers"}, "data": {"utils"}, "plots": {"utils"}}
for package in ("evaluation", "training", "tuning", "webapp", "scripts"):  # each may import all before it
    MAY_IMPORT[package] = set(MAY_IMPORT)


def package_of(module: str) -> str:
    name = module.partition(".")[0]
    return "scripts" if name in SCRIPTS else name


def imports(source: str, modules: Collection[str]) -> set[str]:
    """Those of `modules` that a source imports, inside functions and under TYPE_CHECKING too."""
    named = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]  # a module or what is in node.module
            named |= {name if name in modules else node.module for name in names}
    return named & set(modules)


def backward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports against the order of the packages."""
    found = []
    for module, imported in graph.items():
        allowed = MAY_IMPORT[package_of(module)] | ({package_of(module)} - {"scripts"})
        found += [f"{module} imports {name}" for name in sorted(imported) if package_of(name) not in allowed]
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Every module of the packages and the scripts -> the modules that it imports."""
    files = [ROOT / f"{name}.py" for name in SCRIPTS]
    files += [file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")]
    sources = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts).removesuffix(".__init__")] = file.read_text(encoding="utf-8")
    return {module: imports(source, sources) for module, source in sources.items()}


def test_no_import_is_against_the_order(graph):
    assert {package_of(module) for module in graph} == set(MAY_IMPORT)
    assert not backward(graph)


def test_no_modules_import_each_other(graph):
    """But for the methods of the network that load, classify and sample, which import when they are called."""
    assert "model.pretrained" in graph["model.pixelcnn"]
    source = (ROOT / "model/pixelcnn.py").read_text(encoding="utf-8")
    late = [line for line in source.splitlines() if "import" in line and "model.pretrained" in line]
    assert late and all(line.startswith("        from ") for line in late)
    assert not circle(graph | {"model.pixelcnn": graph["model.pixelcnn"] - {"model.pretrained"}})


def test_a_backward_import_is_found():
    modules = {"utils.files", "model", "model.mixture", "training.step", "sweep", "classify"}
    hidden = "if TYPE_CHECKING:\n    from model import mixture\ndef f():\n    import training.step\nimport torch\n"
    graph = {"utils.files": imports(hidden, modules), "sweep": imports("from classify import main", modules)}
    assert backward(graph) == [
        "utils.files imports model.mixture",
        "utils.files imports training.step",
        "sweep imports classify",
    ]
    assert not backward({"training.step": {"utils.files", "model.mixture"}, "sweep": {"training.step"}})


def test_a_circle_is_found():
    modules = {"model.a", "model.b", "model.c"}
    sources = {
        "model.a": "import model.b",
        "model.b": "from model.c import x",
        "model.c": "def f():\n    import model.a",
    }
    assert set(circle({name: imports(source, modules) for name, source in sources.items()})) == modules
    assert not circle({"model.a": {"model.b"}, "model.b": set()})
