"""Where a worker computes."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from clients.worker import worker_device
from models.core.device import CUBLAS_WORKSPACE, choose_device, pinned, place
from models.core.errors import UserError


@pytest.mark.parametrize(
    ("requested", "num_gpus", "granted", "expected"),
    [
        ("auto", 0, None, "cpu"),
        ("auto", 2, None, "cuda:0"),
        ("auto", 0, [], "cpu"),
        ("auto", 1, [], "cpu"),  # Ray gave this worker no GPU, and hides none from it either
        ("auto", 1, [3], "cuda:0"),  # the fourth GPU of the host is the only one that torch sees
        ("cpu", 0, None, "cpu"),
        ("cpu", 2, None, "cpu"),
        ("cpu", 1, [0], "cpu"),
        ("cuda", 2, None, "cuda"),
        ("cuda", 1, [3], "cuda"),
        ("cuda:1", 2, None, "cuda:1"),
    ],
)
def test_the_device_that_was_asked_for(
    requested: str, num_gpus: int, granted: list[int] | None, expected: str
) -> None:
    assert choose_device(requested, num_gpus, granted) == torch.device(expected)


@pytest.mark.parametrize(
    ("requested", "num_gpus", "granted", "message"),
    [
        ("cuda", 0, None, "device is 'cuda', but torch sees no GPU"),
        ("cuda", 0, [], "device is 'cuda', but torch sees no GPU"),
        ("cuda", 1, [], "device is 'cuda', but Ray gave this worker none: set client-gpus"),
        ("gpu", 1, None, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("", 1, None, "device must be auto, cpu, cuda or cuda:N, got ''"),
        ("cuda:x", 1, None, "device must be auto, cpu, cuda or cuda:N, got 'cuda:x'"),
        ("cuda:2", 2, None, "device is 'cuda:2', but torch sees "),
        ("cuda:1", 1, [3], "device is 'cuda:1', but "),
        ("meta", 0, None, "device must be auto, cpu, cuda or cuda:N, got 'meta'"),
    ],
)
def test_a_device_that_is_not_there(
    requested: str, num_gpus: int, granted: list[int] | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        choose_device(requested, num_gpus, granted)
    assert str(error.value).startswith(message)


def ray(gpus: list[int], actor: str | None = "actor-1", initialized: bool = True) -> SimpleNamespace:
    """Return what a worker sees of Ray."""
    return SimpleNamespace(
        is_initialized=lambda: initialized,
        get_runtime_context=lambda: SimpleNamespace(get_actor_id=lambda: actor),
        get_gpu_ids=lambda: gpus,
    )


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (ray([]), "cpu"),
        (ray([0]), "cuda:0"),
        (ray([], actor=None), "cuda:0"),  # the driver, which Ray grants nothing
        (ray([], initialized=False), "cuda:0"),
    ],
)
def test_inside_ray_the_grant_decides(
    monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert worker_device("auto") == torch.device(expected)


def test_without_ray_the_gpu_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert worker_device("auto") == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert worker_device("auto") == torch.device("cpu")
    assert "ray" not in sys.modules  # importing it would take a second


Settings = tuple[int, bool, bool, int, bool]


def settings() -> Settings:
    """Return what of torch's settings decides how it rounds."""
    cudnn = torch.backends.cudnn
    return (
        torch.get_num_threads(),
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.get_deterministic_debug_mode(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )


@pytest.mark.parametrize(("on_gpu", "repeatable"), [(False, (0, True)), (True, (1, False))])
def test_settings_are_given_back(
    on_gpu: bool, repeatable: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with pinned(before[0] + 1):
            assert settings() == (before[0] + 1, True, False, *repeatable)
            raise KeyError

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: on_gpu)
    before = settings()
    with pytest.raises(KeyError):
        fail()
    assert settings() == before


def test_a_model_on_a_gpu_asks_cublas_for_one_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_WORKSPACE, "")  # so that it is put back as it was before the test
    monkeypatch.delenv(CUBLAS_WORKSPACE)
    model = nn.Linear(2, 2)
    place(model, torch.device("cpu"))
    assert CUBLAS_WORKSPACE not in os.environ
    monkeypatch.setattr(model, "to", lambda device: model)
    place(model, torch.device("cuda"))
    assert os.environ[CUBLAS_WORKSPACE] == ":4096:8"
    monkeypatch.setenv(CUBLAS_WORKSPACE, ":16:8")  # what a user asks for
    place(model, torch.device("cuda"))
    assert os.environ[CUBLAS_WORKSPACE] == ":16:8"
