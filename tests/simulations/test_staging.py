import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from places import ROOT

from simulations.runtime.staging import PACKAGES, stage


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_checkout_is_copied_byte_for_byte(tmp_path):
    expected = {str(f.relative_to(ROOT)): f.read_bytes() for p in PACKAGES for f in (ROOT / p).rglob("*.py")}
    expected["pyproject.toml"] = (ROOT / "pyproject.toml").read_bytes()
    app = stage(tmp_path)
    assert app == tmp_path / "app"
    assert files_under(app) == expected


def test_flower_bundles_every_staged_module(tmp_path):
    app = stage(tmp_path)
    bundle = zipfile.ZipFile(BytesIO(build_fab_from_disk(app)))
    assert {n for n in bundle.namelist() if n.endswith(".py")} == {
        n for n in files_under(app) if n.endswith(".py")
    }


def test_an_installed_polyfed_carries_its_pyproject(tmp_path):
    site = tmp_path / "site-packages"
    for package in (*PACKAGES, "simulations"):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(f'"""{package}"""', encoding="utf-8")
    (site / "simulations" / "runtime").mkdir()
    shutil.copy(ROOT / "simulations" / "runtime" / "staging.py", site / "simulations" / "runtime")
    (site / "simulations" / "pyproject.toml").write_text("ours", encoding="utf-8")
    (site / "pyproject.toml").write_text("left there by another package", encoding="utf-8")
    code = "from pathlib import Path; from simulations.runtime.staging import stage; stage(Path('.'))"
    # No site: an editable install in this environment must not answer in the layout's place.
    command = [sys.executable, "-S", "-c", code]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(site)}, check=True)
    assert files_under(tmp_path / "app") == {
        "pyproject.toml": b"ours",
        **{f"{package}/__init__.py": f'"""{package}"""'.encode() for package in PACKAGES},
    }


def test_the_users_modules_go_to_workers_with_their_packages(tmp_path):
    """Those that were imported, whole packages of them, and none that is installed or lies beside."""
    user = tmp_path / "user"
    for file, text in {
        "mine.py": "import helpers.inner, parts",
        "helpers/__init__.py": "",
        "helpers/inner.py": "",
        "helpers/later.py": "",
        "helpers/data.bin": "x",
        "parts.py": "",
        "not_imported.py": "",
        "models/__init__.py": "raise RuntimeError",
    }.items():
        (user / file).parent.mkdir(parents=True, exist_ok=True)
        (user / file).write_text(text, encoding="utf-8")
    code = (
        "from pathlib import Path; from models.core.user_code import import_user_module;"
        "from simulations.runtime.cluster_code import stage_for_workers;"
        f"import_user_module('mine'); print(stage_for_workers(Path({str(tmp_path)!r})))"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=user, check=True, capture_output=True, text=True, encoding="utf-8")
    staged = files_under(Path(done.stdout.strip()))
    theirs = {name for name in staged if name.partition("/")[0] not in (*PACKAGES, "simulations", "polyfed")}
    assert theirs == {"mine.py", "parts.py", "helpers/__init__.py", "helpers/inner.py", "helpers/later.py"}
    assert staged["models/__init__.py"] == (ROOT / "models" / "__init__.py").read_bytes()
    assert "simulations/runtime/cluster_worker.py" in staged
    assert "polyfed/__init__.py" in staged
