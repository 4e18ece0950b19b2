"""Makes polyfed's packages come first: a folder called models/ in front of ours would answer to the name.

Run as a file, before anything is imported by such a name: by its name it might be somebody else's too.
"""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = ("models", "strategies", "clients", "server", "simulations")
ROOT = Path(__file__).resolve().parents[2]


def put_first() -> None:
    """Import our packages by their place wherever another module would answer to one of their names.

    Raises ImportError where one has been imported already, and says in a warning which are hidden by ours.
    """
    for name in PACKAGES:
        if not (ROOT / name / "__init__.py").is_file():  # Flower's copy of the app has no simulations
            continue
        if name in sys.modules:
            found: ModuleType | ModuleSpec | None = sys.modules[name]
        else:
            found = importlib.util.find_spec(name)
        place = _place(found)
        if place == ROOT / name or (place and _is_polyfeds(place)):
            continue
        if name in sys.modules:
            raise ImportError(
                f"polyfed has a package {name!r}, and {place} was imported under that name: rename the latter"
            )
        if place is not None:
            said = f"{place} is hidden by polyfed's package {name!r}: rename it to import it"
            warnings.warn_explicit(said, UserWarning, "polyfed", 0)
        _import(name)


def _is_polyfeds(place: Path) -> bool:
    """Whether a folder is that of another copy of polyfed, as Flower makes one of the app."""
    return (place.parent / "models" / "core" / Path(__file__).name).is_file()


def _place(found: ModuleType | ModuleSpec | None) -> Path | None:
    """Return the folder of a package, or the file of a module."""
    spec = found.__spec__ if isinstance(found, ModuleType) else found
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]).resolve() if folders else Path(spec.origin or "").resolve()


def _import(name: str) -> None:
    spec = PathFinder.find_spec(name, [str(ROOT)])
    assert spec is not None  # its __init__.py is there
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


put_first()
