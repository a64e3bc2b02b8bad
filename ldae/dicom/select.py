"""Choice of the T1-weighted series of a study by a stated rule, with a reason for every series left out.

Reasons are fixed sentences: nothing of a header stands in them, so they may be published.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ldae.dicom.headers import ENHANCED_MR_IMAGE, MR_IMAGE, Header, Series

__all__ = ["SeriesRule", "select_series"]

MIN_PLANES = 10
THIN_MM = 2.0

# Words of a description, in lower case, between anything that is no letter or digit.
LOCALISER = re.compile(
    r"loc|localizer|localiser|scout|survey|smartbrain|aa(h|head|hscout|headscout).*|3plane|pilot|tripilot"
)
T1W = re.compile(
    r"s?t1(w|wi|mpr.*|3d|spgr|fl3d|tfl|tfe|ffe|se|tse|fse|vibe)?|3dt1|mprage|rage|i?r?f?spgr|ir?fspgr|efgre3d|bravo|3dtfe|tfe3d|"
    r"tfl|tfl3d|mdeft"
)
MAP = re.compile(r"t1maps?|maps?|t1rho")
OTHER_CONTRAST = re.compile(
    rf"{MAP.pattern}|s?t2.*|pd|pdw|flair|dark|dwi|dti|diff|diffusion|adc|fa|tracew?|swi|swan|minip|mip|phase|pha|bold|"
    r"fmri|resting|rest|rsfmri|epi|ep2d|asl|pcasl|pasl|perf|perfusion|cbf|dsc|dce|tof|mra|mrv|angio|fieldmap|fmap|b0|b0map|b1|"
    r"b1map|stir|ciss|fiesta|haste|mrs|csi|svs|spectroscopy|qsm|mtr?|uni|inv1|inv2|mp2rage"
)
CONTRAST_AGENT = re.compile(
    r"gd|gad|gado|gadolinium|post|postcontrast|postgd|ce|km|contrast|gadovist|dotarem|magnevist"
)
PLUS_AGENT = re.compile(r"\+ ?(c|gd|gad|km)\b|\bc\+")
# Values of ImageType.
REFORMATTED = frozenset(
    ["MPR", "REFORMATTED", "PROJECTION IMAGE", "MIP", "MIN IP", "MAX IP", "MNIP", "CSA MPR", "SUBTRACTION", "MOSAIC"]
)
LOCAL = "a localiser; take the 3D scan of the study"
DERIVED = "a derived or secondary image; if it is the scan, corrected for distortion, give --include-derived"
SLICED = "a reformatted or projected image; take the series that it was made from"
QUANTITIES = "a map of quantities such as T1 times; take a T1-weighted series"
NOT_MAGNITUDE = frozenset(["P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "VELOCITY"])


@dataclass(frozen=True)
class SeriesRule:
    """Exceptions to the choice of series.

    Attributes:
        series_description: take exactly the series whose description or protocol's name fits: a shell pattern, or a part
            of it; case does not matter. Contrast is then not judged.
        include_derived: take derived and secondary images too.
        any_modality: take images whose header does not state MR.
    """

    series_description: str | None = None
    include_derived: bool = False
    any_modality: bool = False


def select_series(study: Sequence[Series], rule: SeriesRule) -> dict[str, str | None]:
    """Judge the series of one study.

    In order: images that are no MR, colour, burned-in text, localisers, maps of quantities, reformatted, derived and
    secondary images, phase images, diffusion mosaics, and fewer than ten planes are left out. With a pattern the rest is
    taken where it fits. Without one, a description decides that names T1 or a T1 sequence and no other contrast or contrast
    agent, unless the timing contradicts it; then the timing; and what neither decides is taken if it is the study's only 3D
    series.

    Returns:
        SeriesInstanceUID -> why it is left out, None where it is taken.
    """
    reasons = {series.uid: _unsuitable(series, rule) for series in study}
    if rule.series_description is not None:
        pattern = rule.series_description.lower()
        for series in study:
            if reasons[series.uid] is None and not _fits(series.header, pattern):
                reasons[series.uid] = "its description does not fit --series-description"
        return reasons
    volumes = [series for series in study if reasons[series.uid] is None and _is_3d(series)]
    for series in study:
        if reasons[series.uid] is None:
            reasons[series.uid] = _other_contrast(series.header, alone=volumes == [series])
    return reasons


def _fits(header: Header, pattern: str) -> bool:
    texts = [header.text(keyword).lower() for keyword in ("SeriesDescription", "ProtocolName")]
    return any(pattern in text or fnmatch.fnmatchcase(text, pattern) for text in texts)


def _names(text: str, words: re.Pattern[str]) -> bool:
    return any(words.fullmatch(word) for word in re.findall(r"[a-z0-9]+", text.lower()))


def _unsuitable(series: Series, rule: SeriesRule) -> str | None:
    """Reason to leave a series out whatever its contrast, or None."""
    header = series.header
    kinds = set(header.words("ImageType"))
    if not rule.any_modality:
        if header.words("Modality") != ("MR",):
            return "the modality is not MR"
        if header.text("SOPClassUID") not in (MR_IMAGE, ENHANCED_MR_IMAGE):
            return "not stored as an MR image"
    if (header.number("SamplesPerPixel") or 1) > 1 or header.text("PhotometricInterpretation") == "MONOCHROME1":
        return "a colour or inverted image"
    if header.words("BurnedInAnnotation") == ("YES",):
        return "text is burned into the image"
    if "LOCALIZER" in kinds or _names(header.text("SeriesDescription"), LOCALISER):
        return LOCAL
    if rule.series_description is None and _names(header.text("SeriesDescription"), MAP):
        return QUANTITIES
    if not rule.include_derived:
        if kinds & REFORMATTED:
            return SLICED
        if kinds & {"DERIVED", "SECONDARY"}:
            return DERIVED
    if kinds & NOT_MAGNITUDE:
        return "a phase, real or imaginary image"
    if len(series.planes) < MIN_PLANES:
        return f"fewer than {MIN_PLANES} images"
    return None


def _is_3d(series: Series) -> bool:
    """As the header states; where it does not, by planes of at most 2 mm."""
    stated = series.header.words("MRAcquisitionType")
    thickness = series.header.number("SliceThickness")
    return stated == ("3D",) if stated else thickness is not None and thickness <= THIN_MM


def _other_contrast(header: Header, *, alone: bool) -> str | None:
    """Reason why a series is no plain T1w, or None."""
    description = header.text("SeriesDescription")
    if not _names(description, T1W) and not _names(description, OTHER_CONTRAST):
        # Only then: some scanners call all series of a study by one protocol.
        description = header.text("ProtocolName")
    agent = header.text("ContrastBolusAgent").lower() not in ("", "no", "none", "n/a")
    if agent or _names(description, CONTRAST_AGENT) or PLUS_AGENT.search(description.lower()):
        return "after a contrast agent"
    named = _names(description, T1W)
    if _names(description, OTHER_CONTRAST):
        return "its description names T1 and another contrast" if named else "its description names another contrast"
    timing = _timing(header)
    if timing is False:
        return "its timing is not that of a T1w scan"
    if named or timing is True or alone:
        return None
    return "its contrast is unknown"


def _timing(header: Header) -> bool | None:
    """True if sequence and times are those of a T1w scan; None if they do not decide."""
    # Timing cannot distinguish a spoiled gradient echo from an angiogram; MPRAGE and its like have an inversion.
    sequence = header.words("ScanningSequence")
    echo, repetition, inversion = (header.number(f"{name}Time") for name in ("Echo", "Repetition", "Inversion"))
    if "EP" in sequence or (echo is not None and echo > 35):
        return False
    if echo is None or not sequence:
        return None
    if "GR" in sequence:
        return True if inversion is not None and 300 <= inversion <= 1500 and echo <= 12 else None
    if "SE" in sequence and repetition is not None:
        if repetition <= 900:
            return True
        # A long repetition is proton density, unless an inversion makes it T1w (T1 FLAIR).
        return None if inversion else False
    return None
