from functools import cache
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.data.renderer import ACTION_UNITS, AFFECT_ANGLES, MAX_ANGLE, render_faces


@cache
def many() -> tuple[np.ndarray, dict[str, np.ndarray[Any, Any]]]:
    return render_faces(500, 48, seed=2)


def test_a_face_depends_on_its_number_and_seed_alone() -> None:
    images, labels = render_faces(6, 48, seed=3)
    again, relabels = render_faces(2, 48, seed=3, start=4)
    assert np.array_equal(images[4:], again)
    assert all(np.array_equal(labels[name][4:], relabels[name]) for name in labels)
    assert not np.array_equal(images, render_faces(6, 48, seed=4)[0])


@pytest.mark.parametrize("size", [16, 48, 97])
def test_shapes_types_and_ranges(size: int) -> None:
    images, labels = render_faces(5, size, seed=0)
    assert images.shape == (5, size, size, 3)
    assert images.dtype == np.uint8
    assert all(image.std() > 10 for image in images)
    assert labels["emotion"].dtype == labels["gender"].dtype == np.int64
    assert labels["pose"].shape == (5, 3)
    assert np.abs(labels["pose"]).max() <= MAX_ANGLE


def test_labels_are_balanced() -> None:
    labels = many()[1]
    counts = np.bincount(labels["emotion"], minlength=8)
    assert counts.min() > 35  # of 62 expected; 3.7 standard deviations
    assert 205 < labels["gender"].sum() < 295
    assert labels["pose"].std(axis=0).min() > 4
    assert set(ACTION_UNITS) == set(EMOTIONS)


def test_emotions_differ_on_average_where_they_should() -> None:
    """Surprise opens the mouth, which is dark inside; anger does not: the lower middle of the face is darker."""
    images, labels = many()
    mouth = images[:, 33:40, 20:28].mean(axis=(1, 2, 3)) - images[:, 18:40, 12:36].mean(axis=(1, 2, 3))
    of = {name: mouth[labels["emotion"] == number].mean() for number, name in enumerate(EMOTIONS)}
    assert of["surprise"] < of["anger"] - 10


def test_yaw_moves_the_face_s_middle() -> None:
    """Turned faces show more of one cheek: the picture is less symmetric than a frontal one."""
    images, labels = many()
    grey = images.mean(axis=3)[:, 14:40, 10:38]
    lopsided = np.abs(grey - grey[:, :, ::-1]).mean(axis=(1, 2))
    yaw = np.abs(labels["pose"][:, 0])
    assert lopsided[yaw > 20].mean() > lopsided[yaw < 5].mean() + 3


def test_affect_is_the_emotion_s_point_scaled_by_the_intensity() -> None:
    labels = many()[1]
    assert labels["affect"].dtype == np.float32
    assert labels["affect"].shape == (500, 2)
    names = np.array(EMOTIONS)[labels["emotion"]]
    assert (labels["affect"][names == "neutral"] == 0).all()
    valence, arousal = labels["affect"][names != "neutral"].T
    expected = [AFFECT_ANGLES[name] for name in names[names != "neutral"]]
    np.testing.assert_allclose(np.degrees(np.arctan2(arousal, valence)) % 360, expected, atol=1e-4)
    intensity = np.hypot(valence, arousal)
    assert 0.5 <= intensity.min() < 0.55
    assert 0.95 < intensity.max() <= 1


def test_signs_of_valence_and_arousal() -> None:
    labels = many()[1]
    signs = {
        EMOTIONS[emotion]: tuple(np.sign(affect).astype(int).tolist())
        for emotion, affect in zip(labels["emotion"], labels["affect"], strict=True)
    }
    assert signs == {
        "neutral": (0, 0),
        "happiness": (1, 1),
        "surprise": (1, 1),
        "fear": (-1, 1),
        "anger": (-1, 1),
        "disgust": (-1, 1),
        "contempt": (-1, 1),
        "sadness": (-1, -1),
    }
