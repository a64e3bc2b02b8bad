"""Records of scans that no manifest lists."""

from pathlib import Path
from typing import Any

from ldae.data.manifest import Record

UNKNOWN = dict.fromkeys(("age", "sex", "diagnosis", "months", "site", "split"))


def record_of(participant: str, session: str = "1", image: str | Path = "none", **known: Any) -> Record:
    """A record of a scan of which nothing is known but what is given."""
    return Record(participant, session, Path(image), **{**UNKNOWN, "extra": {}, **known})
