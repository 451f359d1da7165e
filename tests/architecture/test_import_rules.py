"""The walls of the house: who may import whom, what may cost what to import, how long a module may be."""

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = ("rec_models", "prompts", "providers", "warehouse")
PACKAGES = (*SIBLINGS, "flows")

# One owner a heavy dependency: a box that only trains needs rec_models alone, a laptop that only looks needs warehouse.
OWNERS = {
    "torch": {"rec_models", "providers"},  # sentence-transformers brings it, inside open()
    "safetensors": {"rec_models"},
    "sentence_transformers": {"providers"},
    "openai": {"providers"},
    "httpx2": {"providers"},
    "xllamacpp": {"providers"},
    "duckdb": {"warehouse"},
    "pyarrow": {"warehouse"},
    "sqlalchemy": {"warehouse"},
    "jinja2": {"prompts", "flows"},
    "yaml": {"prompts"},
    "prefect": {"flows"},
    "typer": {"flows"},
    "rich": {"flows"},
    "sklearn": {"flows"},
    "matplotlib": {"flows"},
    "optuna": {"flows"},
}
TRAINING_NEEDS = {"torch", "numpy", "scipy", "safetensors", "pydantic"}
LAYERS = {  # inside rec_models, low to high; a module may import from its own layer or below
    "errors": 0,
    "memory": 0,
    "protocols": 0,
    "derived": 0,
    "interactions": 0,
    "gaussians": 0,
    "matching": 1,
    "losses": 1,
    "blocks": 1,
    "diffusion": 1,
    "information": 1,
    "transport": 1,
    "fusion": 1,
    "adaptive_transport": 2,
    "clusters": 1,
    "candidates": 1,
    "text_features": 1,
    "semantic": 1,
    "metrics": 1,
    "sampled": 2,
    "adversarial": 2,
    "rating_condition": 2,
    "row_pairs": 2,
    "rated_lists": 1,
    "rating_report": 1,
    "comparison": 1,
    "normalizing": 1,
    "least_squares": 2,
    "anchors": 2,
    "mixtures": 1,
    "alignment": 1,
    "factors": 2,
    "text_units": 2,
    "explanation": 1,
    "meta_network": 2,
    "recommender": 2,
    "graph": 2,
    "item_weights": 2,
    "text_graph": 2,
    "neighbours": 2,
    "attention": 2,
    "cold": 2,
    "diversity": 0,
    "warm_start": 4,
    "models": 3,
    "settings": 4,
    "bundle": 4,
    "checkpoints": 4,
    "evaluation": 4,
    "measured": 5,
    "training": 5,
    "training_config": 4,
    "parts": 4,
    "analysis": 5,
    "collaboration": 5,
    "rescoring": 6,
    "trained": 6,
    "__main__": 6,
    "__init__": 6,
}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    """(module, name or None, inside a TYPE_CHECKING block) of every import of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write the package's name instead of a relative import"
            yield from ((node.module, alias.name, id(node) in typing_only) for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_siblings_do_not_know_each_other_and_nobody_imports_flows(package):
    for path in modules(package):
        for module, _, _ in imports(path):
            top = module.partition(".")[0]
            if top not in PACKAGES or top == package:
                continue
            where = path.relative_to(ROOT)
            assert package == "flows", f"{where} imports {module}: pass the value in from flows/steps instead"
            assert module == top, f"{where} imports {module}: take the name from the package root `{top}`"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_heavy_dependency_has_its_owner(package):
    for path in modules(package):
        for module, _, typing_only in imports(path):
            owners = OWNERS.get(module.partition(".")[0], {package})
            if typing_only:
                continue
            assert package in owners, f"{path.relative_to(ROOT)} imports {module}, which belongs to {sorted(owners)}"


def test_prefect_is_imported_by_two_files():
    for package in PACKAGES:
        for path in modules(package):
            uses = [module for module, _, _ in imports(path) if module.partition(".")[0].startswith("prefect")]
            homes = {Path("flows/deployed.py"), Path("flows/shards.py")}
            assert not uses or path.relative_to(ROOT) in homes, f"{path} imports prefect"


def test_training_needs_nothing_but_torch_and_four_small_packages():
    allowed = TRAINING_NEEDS | set(sys.stdlib_module_names) | {"rec_models"}
    for path in modules("rec_models"):
        for module, _, _ in imports(path):
            assert module.partition(".")[0] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_layers_of_rec_models_only_look_down():
    for path in modules("rec_models"):
        own = path.relative_to(ROOT / "rec_models").parts[0].removesuffix(".py")
        for module, name, typing_only in imports(path):
            if not module.startswith("rec_models") or typing_only:
                continue
            target = module.split(".")[1] if "." in module else (name or "__init__")
            assert LAYERS[target] <= LAYERS[own], f"{path.relative_to(ROOT)} imports {module}, a layer above it"


def test_models_do_not_import_models():
    for path in (ROOT / "rec_models" / "models").glob("*.py"):
        if path.stem == "__init__":
            continue
        for module, _, typing_only in imports(path):
            foreign = module.startswith("rec_models.models") and not typing_only
            if foreign:
                assert module == "rec_models.models", f"{path.name} imports {module}: parts receive parts"


def test_no_module_is_longer_than_400_lines():
    for package in PACKAGES:
        for path in modules(package):
            lines = len(path.read_text("utf-8").splitlines())
            assert lines <= 400, (
                f"{path.relative_to(ROOT)} has {lines} lines; give one of its ideas a module of its own"
            )


def test_no_name_in_flows_hides_another_module():
    # Prefect's script loader puts flows/ first on sys.path.
    installed = {name for names in metadata.packages_distributions() for name in [names]} - set(PACKAGES)
    taken = set(sys.stdlib_module_names) | installed | set(SIBLINGS)
    for path in (ROOT / "flows").iterdir():
        if path.name.startswith("__"):
            continue
        assert path.stem not in taken, f"flows/{path.name} hides the module {path.stem}"


def test_packages_are_listed_and_resolve_inside_this_checkout():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(listed) == found
    for package in PACKAGES:
        origin = subprocess.run(
            [sys.executable, "-c", f"import {package}; print({package}.__file__)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert Path(origin).is_relative_to(ROOT), origin


HEAVY = (
    "torch",
    "sentence_transformers",
    "transformers",
    "openai",
    "duckdb",
    "pyarrow",
    "prefect",
    "matplotlib",
    "scipy",
)


@pytest.mark.parametrize("package", (*PACKAGES, "flows.cli"))
def test_importing_has_no_effect_and_costs_nothing(package, tmp_path):
    code = f"import sys, {package}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())


def test_constraints_are_complete_exact_and_name_no_host():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line and "://" not in line and "@" not in line for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*needed["dependencies"], *(name for names in needed["optional-dependencies"].values() for name in names)]
    for requirement in asked:
        name = requirement.split("[")[0]
        for mark in "<>=~!; ":
            name = name.split(mark)[0]
        assert name.lower().replace("_", "-") in pinned, f"{name} is not pinned in constraints.txt"
