"""The rule that tells T1w heads from everything else a scanner makes."""

import pytest

from ldae.dicom.headers import Header, Series
from ldae.dicom.select import DERIVED, LOCAL, QUANTITIES, SLICED, SeriesRule, select_series

UNTOLD = {"ScanningSequence": "", "InversionTime": ""}


def series(description: str = "Sag MPRAGE", planes: int = 12, **values: str) -> Series:
    elements = {
        "SeriesInstanceUID": description + str(sorted(values.items())),
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "Modality": "MR",
        "ImageType": "ORIGINAL\\PRIMARY\\M\\NORM",
        "SeriesDescription": description,
        "ScanningSequence": "GR\\IR",
        "MRAcquisitionType": "3D",
        "EchoTime": "3",
        "RepetitionTime": "2300",
        "InversionTime": "900",
        **values,
    }
    header = Header({name: tuple(value.split("\\")) for name, value in elements.items() if value})
    return Series(header, planes=[(0.0,) * 7] * planes)


def judged(*study: Series, **rule: object) -> list[str | None]:
    reasons = select_series(study, SeriesRule(**rule))
    return [reasons[each.uid] for each in study]


@pytest.mark.parametrize(
    "description",
    [
        "MPRAGE",
        "MP-RAGE REPEAT",
        "Accelerated Sagittal MPRAGE",
        "t1_mprage_sag_p2_iso",
        "t1mprage",
        "sT1W_3D_TFE",
        "SAG 3D T1 BRAVO",
        "IR-FSPGR",
        "Sag IR-SPGR",
        "3D T1",
        "t1_fl3d_sag",
    ],
)
def test_names_of_t1w_scans(description: str) -> None:
    # The timing of neither says anything.
    assert judged(series(description, **UNTOLD), series("3D FLAIR"))[0] is None


@pytest.mark.parametrize(
    ("description", "values", "reason"),
    [
        ("MPRAGE", {"Modality": "CT"}, "the modality is not MR"),
        ("MPRAGE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not stored as an MR image"),
        ("MPRAGE", {"SamplesPerPixel": "3"}, "a colour or inverted image"),
        ("MPRAGE", {"BurnedInAnnotation": "YES"}, "text is burned into the image"),
        ("AAHead_Scout", {}, LOCAL),
        ("MPRAGE", {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, LOCAL),
        ("3-Plane Loc", {}, LOCAL),
        ("MPRAGE", {"ImageType": "DERIVED\\PRIMARY\\M"}, DERIVED),
        ("MPRAGE", {"ImageType": "ORIGINAL\\SECONDARY"}, DERIVED),
        ("MPRAGE", {"ImageType": "ORIGINAL\\PRIMARY\\MPR"}, SLICED),
        ("MPRAGE", {"ImageType": "ORIGINAL\\PRIMARY\\PROJECTION IMAGE"}, SLICED),
        ("MPRAGE", {"ImageType": "ORIGINAL\\PRIMARY\\P\\ND"}, "a phase, real or imaginary image"),
        ("MPRAGE", {"ImageType": "DERIVED\\SECONDARY\\MPR"}, SLICED),
        ("T1 map", {"ImageType": "DERIVED\\SECONDARY"}, QUANTITIES),
        ("MPRAGE +C", {}, "after a contrast agent"),
        ("T1 post gad", {}, "after a contrast agent"),
        ("MPRAGE", {"ContrastBolusAgent": "Gadovist"}, "after a contrast agent"),
        ("Sag T2 FLAIR", {}, "its description names another contrast"),
        ("T2w_SPACE", {}, "its description names another contrast"),
        ("ep2d_diff", {}, "its description names another contrast"),
        ("TOF 3D", {}, "its description names another contrast"),
        ("T1 FLAIR", {}, "its description names T1 and another contrast"),
        ("T1", {"EchoTime": "90"}, "its timing is not that of a T1w scan"),
        ("T1", {"ScanningSequence": "EP"}, "its timing is not that of a T1w scan"),
        (
            "T1",
            {"ScanningSequence": "SE", "RepetitionTime": "4000", "EchoTime": "12", "InversionTime": ""},
            "its timing is not that of a T1w scan",
        ),
    ],
)
def test_what_is_left_out(description: str, values: dict[str, str], reason: str) -> None:
    assert judged(series(description, **values)) == [reason]


def test_the_number_of_images_and_the_timing_decide_where_the_name_is_silent() -> None:
    assert judged(series(planes=9)) == ["fewer than 10 images"]
    spin_echo = {"ScanningSequence": "SE", "RepetitionTime": "500", "EchoTime": "12", "InversionTime": ""}
    study = [series("first"), series("second", **spin_echo), series("third", InversionTime="")]
    assert judged(*study) == [None, None, "its contrast is unknown"]


def test_the_only_3d_series_of_a_study_is_taken() -> None:
    flat = series("b", MRAcquisitionType="2D", **UNTOLD)
    assert judged(series("a", **UNTOLD), flat) == [None, "its contrast is unknown"]
    assert judged(series("a", **UNTOLD), series("b", **UNTOLD)) == ["its contrast is unknown"] * 2
    silent = {**UNTOLD, "MRAcquisitionType": ""}
    assert judged(series("a", SliceThickness="1", **silent)) == [None]
    assert judged(series("a", SliceThickness="5", **silent)) == ["its contrast is unknown"]


def test_the_protocols_name_counts_where_the_description_is_silent() -> None:
    assert judged(series("SAG", ProtocolName="MPRAGE", InversionTime=""), series("FLAIR"))[0] is None
    assert judged(series("SAG", ProtocolName="T1 map")) == ["its description names T1 and another contrast"]
    # Some scanners call all series of a study by one protocol.
    assert judged(series("MPRAGE", ProtocolName="BRAIN T1 T2 FLAIR")) == [None]


def test_a_pattern_takes_exactly_what_fits() -> None:
    study = [
        series("Brain 7", **UNTOLD),
        series("MPRAGE"),
        series("brain localizer"),
        series("x", ProtocolName="BRAIN"),
    ]
    expected = [None, "its description does not fit --series-description", LOCAL, None]
    assert judged(*study, series_description="brain*") == expected
    assert judged(*study, series_description="BRAIN") == expected


def test_what_may_be_asked_for() -> None:
    derived = series("MPRAGE", ImageType="DERIVED\\SECONDARY\\MPR")
    assert judged(derived, include_derived=True) == [None]
    assert judged(series("MPRAGE", Modality="OT", SOPClassUID=""), any_modality=True) == [None]
