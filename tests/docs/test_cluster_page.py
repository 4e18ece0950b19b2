"""The files of docs/cluster.md, as far as they can be checked without a cluster."""

import re
import subprocess

import pytest
import ray
import yaml
from plugin_pages import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_slurm_script_is_bash() -> None:
    (script,) = [block for block in blocks("sh") if block.startswith("#!/bin/bash")]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, encoding="utf-8")


def test_the_kubernetes_file_asks_for_the_ray_of_the_lock() -> None:
    job = yaml.safe_load(blocks("yaml")[0])
    assert job["kind"] == "RayJob"
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    for group in [
        job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]:
        (container,) = group["template"]["spec"]["containers"]
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        assert mounts == {volume["name"] for volume in group["template"]["spec"].get("volumes", ())}


@pytest.mark.parametrize("block", blocks("sh"))
def test_options_of_polyfed_are_there(block: str) -> None:
    from simulations.cli import run

    known = {name for option in run.params for name in option.opts}
    for line in re.findall(r"polyfed run (.*?)(?<!\\)$", block, flags=re.MULTILINE | re.DOTALL):
        assert set(re.findall(r"(--[\w-]+)", line)) <= known
