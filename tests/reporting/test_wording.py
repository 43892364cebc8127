import pytest

from hmtl_ablate.reporting.wording import count_text, label, lower_is_better, number_text, plural


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("test/accuracy", "test accuracy, %"),
        ("test/balanced_accuracy", "test balanced accuracy, %"),
        ("test/macro_f1", "test macro F1, %"),
        ("val/gender/auc", "val gender AUC, %"),
        ("test/mae", "test MAE, °"),
        ("test/mae_yaw", "test MAE yaw, °"),
        ("test/pose/geodesic", "test pose geodesic error, °"),
        ("test/loss", "test loss"),
    ],
)
def test_a_metric_has_a_title_with_its_unit(metric: str, title: str) -> None:
    assert label(metric) == title


def test_errors_and_losses_are_better_when_lower() -> None:
    assert [lower_is_better(metric) for metric in ("test/mae", "test/pose/geodesic", "test/loss")] == [True] * 3
    assert [lower_is_better(metric) for metric in ("test/accuracy", "test/auc", "val/gender/macro_f1")] == [False] * 3


@pytest.mark.parametrize(
    ("value", "percent", "sign", "text"),
    [
        (None, True, True, "—"),
        (0.12345, True, False, "12.35"),
        (0.5, True, True, "+50.00"),
        (-0.5, True, False, "−50.00"),
        (4.375, False, False, "4.375"),
        (-0.3125, False, True, "−0.312"),
    ],
)
def test_numbers(value: float | None, percent: bool, sign: bool, text: str) -> None:
    assert number_text(value, percent, sign=sign) == text


def test_counts() -> None:
    assert [count_text(value) for value in (None, 0, 1_234_567.4)] == ["—", "0", "1,234,567"]
    assert [plural(number, "trial") for number in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
