"""De-identification by allow-lists: numbers are written anew, words come from closed lists, all else is left out."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["published_facts", "published_warnings"]

# Names of BIDS and of dcm2niix's side-car.
NUMBERS = (
    "MagneticFieldStrength EchoTime RepetitionTime InversionTime FlipAngle SliceThickness SpacingBetweenSlices "
    "PixelBandwidth EchoTrainLength PercentSampling PercentPhaseFOV"
)
CODES = {
    "Modality": "MR",
    "MRAcquisitionType": "2D 3D",
    "ScanningSequence": "SE IR GR EP RM",
    "SequenceVariant": "SK MTC SS TRSS SP MP OSP NONE",
    "PatientPosition": "HFS HFP HFDL HFDR FFS FFP FFDL FFDR",
}
MANUFACTURERS = {
    "siemens": "Siemens",
    "philips": "Philips",
    "ge": "GE",
    "general electric": "GE",
    "canon": "Canon",
    "toshiba": "Toshiba",
    "hitachi": "Hitachi",
    "fujifilm": "Fujifilm",
    "united imaging": "United Imaging",
    "uih": "United Imaging",
    "bruker": "Bruker",
    "hyperfine": "Hyperfine",
    "ldae": "ldae",
}
MODELS = (
    "Prisma_fit,Prisma,Skyra_fit,Skyra,TrioTim,Trio,Verio,Avanto_fit,Avanto,Aera,Vida,Lumina,Sola,Altea,Amira,Cima.X,"
    "Terra.X,Terra,Spectra,Symphony,SymphonyTim,Sonata,Allegra,Espree,Essenza,Vision,Biograph_mMR,Investigational_Device_7T,"
    "Achieva dStream,Achieva,Ingenia Elition X,Ingenia Ambition X,Ingenia CX,Ingenia,Intera,Gyroscan NT,Gyroscan Intera,"
    "Ingenuity,Panorama,Discovery MR750w,Discovery MR750,Discovery MR450,Signa HDxt,Signa HDx,Signa Excite,Signa Premier,"
    "Signa Architect,Signa Artist,Signa Pioneer,Signa Voyager,Signa Explorer,Signa PET/MR,Signa UHP,Genesis_Signa,Signa,"
    "Optima MR450w,Optima MR360,Vantage Titan,Vantage Galan 3T,Vantage Orian,Vantage Elan,Titan3T,Echelon Oval,Echelon,"
    "Oasis,Airis,uMR 790,uMR 780,uMR 770,uMR 570,uMR Omega,Swoop"
)
# How dcm2niix's warnings begin; what follows may be text of a header or the name of a file.
WARNINGS = (
    "Anatomical Orientation Type (0010,2210) is QUADRUPED",
    "Bogus spatial matrix",
    "DICOM images may be missing",
    "File not large enough to store image data",
    "Instance Number (0020,0013) order is not spatial",
    "Instance number (0020,0013) not found",
    "Intensity slope/intercept varies between slices",
    "Interslice distance varies in this volume",
    "Missing images",
    "Note these images have gantry tilt",
    "PrivateCreator remapping detected",
    "Siemens XA exported as classic not enhanced DICOM",
    "Slices not stacked",
    "Unable to determine slice direction",
    "Unable to determine slice thickness",
    "Unable to determine spatial orientation",
    "Unsupported transfer syntax",
)


def published_facts(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The part of dcm2niix's side-car, BIDS's name -> value, that may be published."""
    facts: dict[str, Any] = {}
    for name in NUMBERS.split():
        value = sidecar.get(name)
        # A number of six digits is no setting of a scanner, and may identify.
        if isinstance(value, (int, float)) and abs(value) < 1e5:
            facts[name] = float(f"{value:.6g}")
    for name, known in CODES.items():
        value = sidecar.get(name, "")
        words = [word for word in re.split(r"[\\_]", value if isinstance(value, str) else "") if word in known.split()]
        if words:
            facts[name] = "_".join(words)
    maker = _known(sidecar.get("Manufacturer"), MANUFACTURERS)
    if maker is not None:
        facts["Manufacturer"] = MANUFACTURERS[maker]
    # Longer names first, so that a 'Signa Premier' is not called 'Signa'.
    model = _known(sidecar.get("ManufacturersModelName"), sorted(MODELS.split(","), key=len, reverse=True))
    if model is not None:
        facts["ManufacturersModelName"] = model
    return facts


def published_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """The part of dcm2niix's warnings that may be published: how those begin that are known, each once."""
    other = "a warning that is shown on the terminal only"
    return tuple(
        dict.fromkeys(next((known for known in WARNINGS if each.startswith(known)), other) for each in warnings)
    )


def _known(text: Any, names: Iterable[str]) -> str | None:
    """The first of known names that stands in a text as whole words."""

    def plain(words: Any) -> str:
        return f" {re.sub(r'[^a-z0-9]+', ' ', str(words).lower())} "

    return next((name for name in names if plain(name) in plain(text)), None)
