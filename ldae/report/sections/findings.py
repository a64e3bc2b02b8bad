"""The report's first section: five sentences on what was found, what was not, and what to doubt."""

from collections.abc import Mapping, Sequence

from ldae.report.blocks import Section, Text
from ldae.report.run_folder import RunFolder
from ldae.report.sections.manipulation import volume_trends
from ldae.report.wording import RIVALS, fixed, joined, ranks, short_name

__all__ = ["findings"]

FEW_SUBJECTS, FEW_SESSIONS = 100, 50
Clause = tuple[str, str]


def findings(run: RunFolder) -> Section:
    """One sentence each on prediction, baselines, images and missing sessions, and one on what to doubt."""
    answers = {
        "prediction of diagnosis and age": _prediction(run),
        "comparison with baselines": _baselines(run),
        "use of the code and edits": _images(run),
        "missing sessions": _sessions(run),
    }
    blocks = [
        Text(_sentence(clauses), "plain" if clauses[0][0] in ("Found", "Code better than") else "note")
        for topic, found in answers.items()
        for clauses in [found or [("Not measured", topic)]]
    ]
    return Section("findings", "In short", [*blocks, Text(_doubt(run), "warning")])


def _sentence(clauses: Sequence[Clause]) -> str:
    """Clauses put together by verdict, the first verdict with a capital letter."""
    parts: list[str] = []
    for verdict in dict.fromkeys(verdict for verdict, _ in clauses):
        texts = joined([text for each, text in clauses if each == verdict])
        parts.append(f"{verdict.lower() if parts else verdict}: {texts}")
    return "; ".join(parts) + "."


def _found(condition: bool) -> str:
    return "Found" if condition else "Not found"


def _prediction(run: RunFolder) -> list[Clause]:
    """An effect is found where its whole interval is on the side of the better values."""
    clauses, (positive, negative) = [], run.classes
    for metric, chance, name, what in (
        (("diagnosis", "auc"), 0.5, "AUC", f"prediction of {positive} against {negative}"),
        (("age", "intervals", "r2"), 0.0, "R\u00b2", "prediction of age"),
    ):
        value, low = (run.results.get("probe", *metric, end) for end in ("value", "low"))
        if isinstance(value, int | float):
            interval = run.results.interval("probe", *metric).text
            text = f"{what} ({name} {fixed(value)}, 95 % interval {interval}; {chance:g} is chance)"
            clauses.append((_found(isinstance(low, int | float) and low > chance), text))
    return clauses


def _baselines(run: RunFolder) -> list[Clause]:
    """How many baselines the code is better than, and the names of the others, of targets with the same ones together."""
    found = _ranked(run)
    clauses: list[Clause] = []
    counts = [
        f"{len(each['better'])} of {sum(map(len, each.values()))} baselines in {target}"
        for target, each in found.items()
        if each["better"]
    ]
    if counts:
        clauses.append(("Code better than", joined(counts)))
    for rank, words in (("tie", "Tie with"), ("worse", "Worse than")):
        targets: dict[str, list[str]] = {}
        for target, each in found.items():
            targets.setdefault(", ".join(map(short_name, each[rank])), []).append(target)
        clauses += [(words, f"{names} ({joined(of)})") for names, of in targets.items() if names]
    return clauses


def _ranked(run: RunFolder) -> dict[str, dict[str, list[str]]]:
    """Baselines of each target that the code is better than, ties with, and is worse than."""
    return {
        target: ranks(run.results.get("probe", target, "differences") or {}, higher_is_better=higher)
        for target, higher in (("diagnosis", True), ("age", False))
    }


def _images(run: RunFolder) -> list[Clause]:
    clauses: list[Clause] = []
    verdict, share, other = (
        run.results.get("code_usage", *keys) for keys in (("verdict",), ("share", "value"), ("shuffled_share", "value"))
    )
    if verdict is not None:
        text = "use of the code by the decoder"
        if isinstance(share, int | float) and isinstance(other, int | float):
            own, others = (fixed(100 * each, 0, " %") for each in (share, other))
            text += f" (explained variance {own} with the own code, {others} with another subject's)"
        clauses.append(("Undecided" if verdict == "undecided" else _found(verdict == "used"), text))
    steps = {"along": " at every step", "against": "", "unsteady": " at every step"}
    for trend, structures in volume_trends(run).items():
        if structures:
            text = f"the expected change{steps[trend]} of {joined(structures)} in edits toward {run.classes[0]}"
            clauses.append((_found(trend == "along"), text))
    return sorted(clauses, key=lambda clause: ("Found", "Undecided", "Not found").index(clause[0]))


def _sessions(run: RunFolder) -> list[Clause]:
    """The change error against methods without a model."""
    errors = run.results.get("interpolate", "change_error")
    own = errors.get(run.own_method) if isinstance(errors, Mapping) else None
    if not isinstance(own, int | float):
        return []
    known = run.results.get("interpolate", "differences", "change_error", run.own_method) or {}
    found = ranks({name: each for name, each in known.items() if name in RIVALS}, higher_is_better=False)
    named = {rank: joined([f"{RIVALS[name]} ({fixed(errors.get(name))})" for name in of]) for rank, of in found.items()}
    what = f"change error of a missing session ({fixed(own)})"
    smaller, words = f"a smaller {what} than", {"better": "Found", "tie": "Tie", "worse": "Not found"}
    texts = {
        rank: f"the {what} with {names}" if rank == "tie" else f"{smaller} {names}" for rank, names in named.items()
    }
    clauses = [(words[rank], text) for rank, text in texts.items() if named[rank]]
    return clauses or [("Not compared", f"the {what}")]


def _doubt(run: RunFolder) -> str:
    """The largest doubts first; that of a single training always holds."""
    results, reasons = run.results, []
    subjects, sessions = results.get("n_test_subjects"), results.get("interpolate", "n")
    if results.get("request", "quick"):
        reasons.append("this quick run at toy size only checks that everything works")
    if run.phantom:
        reasons.append("the scans are simulated and say nothing about patients")
    untrained = [name for name, each in _ranked(run).items() if "random_encoder" in each["tie"] + each["worse"]]
    if untrained:
        reasons.append(f"the code does not beat the same encoder without training in {joined(untrained)}")
    if isinstance(subjects, int) and subjects < FEW_SUBJECTS:
        reasons.append(f"{subjects} test subjects are few")
    if isinstance(sessions, int) and sessions < FEW_SESSIONS:
        reasons.append(f"{sessions} missing sessions are few")
    return f"Doubt: {'; '.join([*reasons, 'intervals leave out that another training gives another model'])}."
