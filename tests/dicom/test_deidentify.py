"""Allow-lists: what of side-cars and warnings may be published."""

from ldae.dicom.deidentify import published_facts, published_warnings


def test_facts_are_numbers_and_known_words() -> None:
    facts = published_facts(
        {
            "Modality": "MR",
            "Manufacturer": "GE MEDICAL SYSTEMS, ward 7",
            "ManufacturersModelName": "DISCOVERY MR750w of Jane",
            "MagneticFieldStrength": 3,
            "EchoTime": 0.0029760001,
            "FlipAngle": "Jane",
            "PixelBandwidth": 123456789,
            "ScanningSequence": "GR\\Jane",
            "SequenceVariant": "SP_MP",
            "PatientPosition": "Jane",
            "ImageType": ["ORIGINAL", "Jane"],
            "ProtocolName": "Jane",
        }
    )
    assert facts == {
        "Modality": "MR",
        "Manufacturer": "GE",
        "ManufacturersModelName": "Discovery MR750w",
        "MagneticFieldStrength": 3.0,
        "EchoTime": 0.002976,
        "ScanningSequence": "GR",
        "SequenceVariant": "SP_MP",
    }
    assert "Manufacturer" not in published_facts({"Manufacturer": "Gemini"})


def test_warnings_are_cut_to_known_words() -> None:
    warnings = ["Missing images? Expected 11 images of Jane", "Jane is odd", "Joe is odd", "Missing images. Found 1"]
    assert published_warnings(warnings) == ("Missing images", "a warning that is shown on the terminal only")
