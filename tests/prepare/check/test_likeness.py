"""One brain under two names, two under one, and a mirrored one, in made-up signatures of known likeness."""

import numpy as np
import pytest

from ldae.atlas import load_template
from ldae.prepare.check.likeness import GRID_MM, compare_brains, signature
from ldae.volume import Volume

PEOPLE = [f"p{i:02d}" for i in range(12)]


def scan(person: int, session: int, *, mirror: bool = False, gain: float = 1.0) -> Volume:
    """The template with a person's own broad pattern and a session's noise, in template space."""
    from scipy.ndimage import gaussian_filter

    template = load_template(GRID_MM)
    shape = template.grid.shape
    own = gaussian_filter(np.random.default_rng(person).normal(size=shape), 1.4)
    noise = np.random.default_rng([person, session]).normal(size=shape)
    data = template.t1.data + 0.15 * own / own.std() + 0.1 * noise
    data = np.where(template.brain_mask.data > 0.5, np.clip(data, 1e-3, None), 0.0)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ template.grid.affine if mirror else template.grid.affine
    return Volume((gain * data).astype(np.float32), affine)


def cohort(sessions: int = 2) -> tuple[list, list[str], list[str]]:
    visits = [(i, session) for i in range(len(PEOPLE)) for session in range(sessions)]
    signatures = [signature(scan(i, session, gain=1.0 + 40 * session)) for i, session in visits]
    return signatures, [f"{PEOPLE[i]}_{session}" for i, session in visits], [PEOPLE[i] for i, _ in visits]


def test_a_sound_cohort_has_no_findings() -> None:
    found, figures = compare_brains(*cohort())
    assert found == []
    assert figures is not None
    assert figures.within_min is not None
    assert figures.between_max < figures.limit < figures.within_min


@pytest.mark.parametrize("sessions", [1, 2])
def test_one_brain_under_two_names(sessions: int) -> None:
    signatures, keys, subjects = cohort(sessions)
    found, _ = compare_brains([*signatures, signature(scan(3, 9, gain=0.01))], [*keys, "copy_0"], [*subjects, "copy"])
    assert [(finding.code, set(finding.subjects)) for finding in found] == [("same-brain", {"copy", "p03"})]


def test_exchanged_sessions_look_like_other_subjects_and_a_mirrored_one_does_not() -> None:
    signatures, keys, subjects = cohort()
    subjects[1], subjects[3] = subjects[3], subjects[1]
    found, _ = compare_brains(signatures, keys, subjects)
    assert {finding.subjects for finding in found if finding.code == "different-subjects"} == {("p00",), ("p01",)}
    assert {finding.code for finding in found} == {"different-subjects", "same-brain"}
    signatures, keys, subjects = cohort()
    signatures[5] = signature(scan(2, 1, mirror=True))
    found, _ = compare_brains(signatures, keys, subjects)
    assert {(finding.code, finding.subjects) for finding in found} == {("mirrored", ("p02",))}


def test_the_template_at_4_mm_is_its_own_mirror_image() -> None:
    mask = load_template(GRID_MM).brain_mask
    affine, brain = mask.grid.affine, mask.data > 0.5
    assert affine[0, 3] == -affine[0, 0] * (brain.shape[0] - 1) / 2
    assert (brain == brain[::-1]).all()


def test_the_order_of_scans_does_not_matter() -> None:
    signatures, keys, subjects = cohort()
    subjects[1] = "other"
    order = np.random.default_rng(0).permutation(len(keys))
    shuffled, _ = compare_brains(*([items[i] for i in order] for items in (signatures, keys, subjects)))
    found, _ = compare_brains(signatures, keys, subjects)
    assert [set(one.subjects) for one in shuffled] == [set(one.subjects) for one in found] == [{"other", "p00"}]


def test_of_few_people_one_brain_under_two_names_is_found() -> None:
    signatures, keys, subjects = cohort(1)
    assert compare_brains(signatures[:5], keys[:5], subjects[:5]) == ([], None)
    assert compare_brains([], [], []) == ([], None)
    again = signature(scan(0, 0, gain=7.0))
    found, likeness = compare_brains([*signatures[:1], again], [*keys[:1], "copy_0"], [*subjects[:1], "copy"])
    assert [(finding.code, set(finding.subjects)) for finding in found] == [("same-brain", {"copy", "p00"})]
    assert likeness is None
    assert compare_brains([*signatures[:1], again], ["a_0", "a_1"], ["a", "a"]) == ([], None)


def test_an_empty_picture_has_no_signature() -> None:
    template = load_template(GRID_MM)
    assert signature(Volume(np.zeros_like(template.t1.data), template.grid.affine)) is None
