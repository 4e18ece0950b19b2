"""A server that wants more of a node than statistics of its data."""

import json
import os
from pathlib import Path

import pytest
from scripts import run_script

MESSAGES = 200


@pytest.mark.slow
def test_nothing_that_a_server_sends_is_run_or_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("home/state", "secret/raw", "started-in"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "secret" / "x.csv").write_text("client,time,value\na,1,2\n", encoding="utf-8")
    (tmp_path / "started-in" / "evil.py").write_text("class Evil: ...\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POLYFED_USER_CODE", str(tmp_path / "started-in"))
    monkeypatch.setenv("POLYFED_CACHE", "off")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = json.loads(run_script("hostile_server.py", tmp_path, MESSAGES).splitlines()[-1])
    assert len(seen["found"]) == MESSAGES
    assert [each for each in seen["found"] if each["noted"] or each["changed"]] == []
    assert [each for each in seen["found"] if not each["named"]] == []
    # The node still works, its clients remember, and what watches it would have seen a file.
    states = [f"run-0123abcd/00{client}/client-{client}/round-2.safetensors" for client in (0, 2)]
    assert (seen["last"], seen["written"]) == ("", states)
    assert seen["noted"] == [f"open {os.path.join(tmp_path, 'home', 'written')}"]
