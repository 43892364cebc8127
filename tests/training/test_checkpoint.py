"""Checkpoints: what is saved is loaded, and nothing else is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.training.checkpoint import load_state, save_state

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES)
def test_trees_of_scalars_are_restored(tmp_path: Path, tree: Any) -> None:
    save_state(tmp_path / "x", {"tree": tree, "tensor": torch.zeros(1)})
    assert load_state(tmp_path / "x")["tree"] == tree


def test_tensors_keep_their_values_and_types(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "model": {"w": torch.randn(2, 3).T, "n": torch.tensor(3)},
        "state": {0: [torch.tensor([1.5], dtype=torch.bfloat16)]},
    }
    save_state(tmp_path / "x", state)
    found = load_state(tmp_path / "x")
    assert torch.equal(found["model"]["w"], state["model"]["w"])
    assert found["model"]["n"].item() == 3
    assert found["state"][0][0].dtype == torch.bfloat16


def test_infinity_is_restored(tmp_path: Path) -> None:
    save_state(tmp_path / "x", {"best": -float("inf"), "t": torch.zeros(1)})
    assert load_state(tmp_path / "x")["best"] == -float("inf")


@pytest.mark.parametrize("content", [None, b"", b"broken"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"can't load .*x"):
        load_state(tmp_path / "x")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="skeleton"):
        load_state(tmp_path / "x")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    save_state(tmp_path / "x", {"t": torch.ones(1)})
    with pytest.raises(TypeError):
        save_state(tmp_path / "x", {"t": torch.zeros(1), "bad": object()})
    assert load_state(tmp_path / "x")["t"].item() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
