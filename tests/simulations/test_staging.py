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
