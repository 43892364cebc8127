"""Device, normalisation, and torch's global state."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.training.device import Setup, fits, provenance, select_device, torch_state

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
        assert state() == (before[0] + 1, True, True, False, False)
    assert state() == before


def test_the_state_is_restored_after_an_exception(state) -> None:
    before = state()
    with pytest.raises(KeyError), torch_state(before[0] + 1):
        raise KeyError
    assert state() == before


def test_strict_deterministic_mode_comes_back(state) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with torch_state(1):
            assert state()[1:3] == (True, True)
        assert state()[1:3] == (True, False)
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
    if torch.cuda.is_available():
        pytest.skip("a GPU is selected")
    assert (select_device("auto").bf16, select_device("bf16").bf16) == (False, True)
    with select_device("bf16").autocast():
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.bfloat16
    with select_device("auto").autocast():
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.float32


def test_a_model_is_placed_in_its_memory_format() -> None:
    conv = CPU.place(torch.nn.Conv2d(4, 4, 3))
    assert isinstance(conv, torch.nn.Conv2d)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_pack_is_never_resident_on_a_cpu() -> None:
    assert not fits(1, torch.device("cpu"))


def test_provenance_names_hardware_and_versions() -> None:
    tags = provenance(CPU, 3, 2)
    assert (tags["device"], tags["precision"], tags["threads"], tags["workers"]) == ("cpu", "fp32", "3", "2")
    assert tags["numerics"] == str(NUMERICS_VERSION)
    assert tags["version.torch"] == torch.__version__
