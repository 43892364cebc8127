"""Device, normalisation, and torch's global state."""

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import ClusterError, ConfigError
from hmtl_ablate.training import loop, parts
from hmtl_ablate.training.batches import ResidentPack
from hmtl_ablate.training.device import WORKSPACE, Setup, fits, provenance, select_device, torch_state, uses_gpu

CPU = Setup(torch.device("cpu"), False, True, "CPU")


@pytest.fixture
def state() -> Callable[[], tuple[object, ...]]:
    def read() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark,
        )

    return read


def test_the_state_holds_inside_and_is_restored(state, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = state()
    with torch_state(before[0] + 1):
        assert state() == (before[0] + 1, True, False, False, False)
    assert state() == before


def test_the_state_is_restored_after_an_exception(state) -> None:
    before = state()
    with pytest.raises(KeyError), torch_state(before[0] + 1):
        raise KeyError
    assert state() == before


def test_deterministic_mode_that_only_warns_comes_back(state) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch_state(1):
            assert state()[1:3] == (True, False)
        assert state()[1:3] == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_restores_the_state(make, run, state) -> None:
    before = state()
    run(make(data__size=16, training__epochs=1), threads=before[0] + 1)
    assert state() == before


def test_images_are_normalised_by_hand() -> None:
    mean, std = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1), torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
    pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    pixels[..., 1], pixels[..., 2] = 255, 51
    images = CPU.images(pixels, mean, std)
    assert images.shape == (2, 3, 4, 4)
    assert images[1, :, 2, 3].tolist() == pytest.approx([0.0, 1.0, (0.2 - 1) / 0.25])
    assert images.is_contiguous(memory_format=torch.channels_last)
    drawn = pixels.permute(0, 3, 1, 2).float() / 255  # as views that are augmented on the device
    torch.testing.assert_close(CPU.images(drawn, mean, std), images)
    assert replace(CPU, channels_last=False).images(pixels, mean, std).is_contiguous()


def test_a_cpu_trains_in_fp32_unless_configured() -> None:
    assert (select_device("auto").bf16, select_device("bf16").bf16) == (False, True)
    with select_device("bf16").autocast():
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.bfloat16
    with select_device("auto").autocast():
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.float32


GPU = replace(CPU, device=torch.device("cuda", 0))
GIB = 2**30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with a GPU, as far as PyTorch's questions about it go; `bf16` and `emulated` may be changed."""
    card = SimpleNamespace(bf16=True, emulated=False, total_memory=80 * GIB)

    def bf16(including_emulation: bool = True) -> bool:
        return card.bf16 and (including_emulation or not card.emulated)

    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: False,
        "device_count": lambda: 2,
        "current_device": lambda: 1,
        "get_device_name": lambda: "H100",
        "is_bf16_supported": bf16,
        "get_device_properties": lambda device: card,
        "mem_get_info": lambda device: (1 * GIB, 80 * GIB),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return card


def test_a_trial_without_gpus_trains_on_the_cpu_of_a_machine_with_gpus(card: SimpleNamespace) -> None:
    """Fault B2: a study with `gpus: 0` trained on GPU 0, all of its trials at once."""
    assert select_device("auto", "cpu").device == torch.device("cpu")
    assert not uses_gpu("cpu")
    assert select_device("auto", "cuda").device == select_device("auto").device == torch.device("cuda", 1)


def test_a_trial_with_a_gpu_that_pytorch_cannot_use_is_refused() -> None:
    """Fault B2, of the same kind: it would have trained on the CPU without a word."""
    with pytest.raises(ClusterError, match=r"resources\.gpus=0"):
        select_device("auto", "cuda")


def test_emulated_bf16_is_not_chosen(card: SimpleNamespace) -> None:
    """Fault B7: a GPU before Ampere emulates bf16, slower than fp32."""
    assert select_device("auto").bf16
    card.emulated = True
    assert not select_device("auto").bf16
    assert select_device("bf16").bf16  # as asked


def test_the_packs_budget_is_a_share_of_the_whole_memory(card: SimpleNamespace) -> None:
    """Fault B6: it was a quarter of what was free at the moment, here 1 of 80 GiB, so it depended on the others."""
    assert fits(20 * GIB, GPU)
    assert not fits(20 * GIB + 1, GPU)
    quarter = replace(GPU, share=0.25)
    assert fits(5 * GIB, quarter)
    assert not fits(5 * GIB + 1, quarter)


def test_a_gpus_deterministic_mode_is_strict_when_asked_and_off_otherwise(
    card: SimpleNamespace, state, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault B5: it only warned, without cuBLAS's workspace, and slowed `interpolate` on every GPU."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with torch_state(1, gpu=True, deterministic=False):
        assert state()[1:3] == (False, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == WORKSPACE  # for a later trial of this process
    with torch_state(1, gpu=True, deterministic=True):
        assert state()[1:3] == (True, False)
    with torch_state(1, gpu=False, deterministic=False):  # on a CPU always
        assert state()[1:3] == (True, False)


def test_a_deterministic_trial_that_comes_too_late_is_refused(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault B5: cuBLAS reads the variable once."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8"), torch_state(1, True, True):
        pass
    with torch_state(1, gpu=True, deterministic=False):
        pass


def test_unused_memory_is_given_back_before_and_after_a_trial(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault B6: what an earlier trial of the same process had used stayed with it."""
    given: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(1))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    monkeypatch.setattr(loop, "uses_gpu", lambda device: device == "cuda")
    monkeypatch.setattr(parts, "select_device", lambda *given: CPU)
    run(make(data__size=16, training__epochs=1), device="cuda")
    assert len(given) == 2
    run(make(data__size=16, training__epochs=1, seed=1), device="cpu")
    assert len(given) == 2


def test_a_pack_is_copied_once_for_all_trials_of_a_process(pack: Pack) -> None:
    """Fault B6: each trial made a copy of its own."""
    held = ResidentPack()
    cpu = torch.device("cpu")
    first = held.of(pack, cpu)
    assert torch.equal(first, torch.from_numpy(np.array(pack.images)))
    assert held.of(replace(pack, images=np.array(pack.images)), cpu) is first  # opened again: the same content
    other = held.of(replace(pack, fingerprint="other"), cpu)
    assert other is not first
    assert held.of(replace(pack, fingerprint="other"), cpu) is other
    assert held.of(pack, cpu) is not first  # one at a time


def test_a_model_is_placed_in_its_memory_format() -> None:
    conv = CPU.place(torch.nn.Conv2d(4, 4, 3))
    assert isinstance(conv, torch.nn.Conv2d)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_pack_is_never_resident_on_a_cpu() -> None:
    assert not fits(1, CPU)


def test_provenance_names_hardware_and_versions() -> None:
    tags = provenance(CPU, 3, 2)
    assert (tags["device"], tags["precision"], tags["threads"], tags["workers"]) == ("cpu", "fp32", "3", "2")
    assert tags["numerics"] == str(NUMERICS_VERSION)
    assert tags["version.torch"] == torch.__version__
