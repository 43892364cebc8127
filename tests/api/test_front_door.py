"""`import hmtl_ablate`: what it exports, what it costs, and that every docstring's example is true."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import hmtl_ablate

EXPORTS = [name for name in hmtl_ablate.__all__ if name != "__version__"]
STARTS_MLFLOW = {"figures", "report", "StudyRun", "run"}
HEAVY = ("torch", "ray", "mlflow", "optuna", "pandas", "pydantic", "numpy", "cv2", "hmtl_ablate.config")


def example_of(name: str) -> doctest.DocTest:
    thing = getattr(hmtl_ablate, name)
    return doctest.DocTestParser().get_doctest(thing.__doc__ or "", {}, name, None, 0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in STARTS_MLFLOW else ()) for name in EXPORTS]
)
@pytest.mark.usefixtures("at_workplace", "trial", "registries")
def test_the_example_of_each_export_runs(name: str) -> None:
    example = example_of(name)
    assert len(example.examples) >= 2, f"{name} has no example"
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert result.failed == 0, "".join(said)


def test_a_broken_example_is_noticed() -> None:
    broken = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "broken", None, 0)
    assert doctest.DocTestRunner().run(broken, out=lambda text: None).failed == 1


def test_all_names_are_listed_and_no_others_are_given() -> None:
    assert set(hmtl_ablate.__all__) <= set(dir(hmtl_ablate))
    assert hmtl_ablate.__all__ == sorted(hmtl_ablate.__all__)
    assert set(hmtl_ablate._MODULES) == set(EXPORTS)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hmtl_ablate.trian  # noqa: B018


@pytest.mark.parametrize("name", EXPORTS)
def test_no_module_takes_the_place_of_an_export(name: str) -> None:
    """Python sets a submodule as an attribute of its package, over an export of the same name."""
    package = Path(hmtl_ablate.__file__).parent
    assert not (package / name).exists()
    assert not (package / f"{name}.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "load_study", "plan"])
def test_light_names_import_nothing_heavy(name: str) -> None:
    heavy = HEAVY if not name else ("torch", "ray", "mlflow", "optuna", "pandas", "cv2")
    use = f"hmtl_ablate.{name}" if name else "hmtl_ablate"
    code = f"import sys, hmtl_ablate; {use}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_importing_takes_less_than_a_fifth_of_a_second() -> None:
    """Best of three: 20 ms without a load on the machine, of which torch alone would take 2 s."""
    code = "import time; t = time.perf_counter(); import hmtl_ablate; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.2
