"""The report's first section: five sentences on what was found, what was not, and what to doubt."""

from collections.abc import Mapping, Sequence

from ldae.report.blocks import Section, Text
from ldae.report.run_folder import RunFolder
from ldae.report.sections.manipulation import volume_trends
from ldae.report.wording import RIVALS, fixed, joined, ranks, short_name

__all__ = ["findings"]

FEW_SUBJECTS, FEW_SESSIONS = 100, 50


def findings(run: RunFolder) -> Section:
    """One sentence each on prediction, baselines, images and missing sessions, and one on what to doubt."""
    answers = {
        "prediction of diagnosis and age": _prediction(run),
        "comparison with baselines": _baselines(run),
        "use of the code, and edits": _images(run),
        "missing sessions": _sessions(run),
    }
    blocks = [
        Text(f"{found}.", "plain") if found else Text(f"Not measured: {topic}.", "note")
        for topic, found in answers.items()
    ]
    return Section("findings", "In short", [*blocks, Text(_doubt(run), "warning")])


def _sentence(subject: str, clauses: Mapping[str, Sequence[str]]) -> str:
    """The subject with each clause whose place `{}` has something to hold; empty where none has."""
    filled = [clause.format(joined(of)) for clause, of in clauses.items() if of]
    return f"{subject} {', and '.join(filled)}" if filled else ""


def _prediction(run: RunFolder) -> str:
    """A target is predicted where the whole interval is on the side of the better values."""
    positive, negative = run.classes
    predicted: list[str] = []
    missed: list[str] = []
    for metric, chance, name, what in (
        (("diagnosis", "auc"), 0.5, "AUC", f"{positive} against {negative}"),
        (("age", "intervals", "r2"), 0.0, "R\u00b2", "age"),
    ):
        value, low = (run.results.get("probe", *metric, end) for end in ("value", "low"))
        if isinstance(value, int | float):
            interval = run.results.interval("probe", *metric).text
            text = f"{what} ({name} {fixed(value)}, 95 % interval {interval}; {chance:g} is chance)"
            (predicted if isinstance(low, int | float) and low > chance else missed).append(text)
    return _sentence("The code", {"predicts {}": predicted, "does not predict {}": missed})


def _baselines(run: RunFolder) -> str:
    """How many baselines the code is better than, and the names of the others, of targets with the same ones together."""
    found = _ranked(run)
    better = [
        f"{len(each['better'])} of {sum(map(len, each.values()))} baselines in {target}"
        for target, each in found.items()
        if each["better"]
    ]
    others: dict[str, list[str]] = {}
    for rank in ("tie", "worse"):
        targets: dict[str, list[str]] = {}
        for target, each in found.items():
            targets.setdefault(joined(list(map(short_name, each[rank]))), []).append(target)
        others[rank] = [f"{names} ({joined(of)})" for names, of in targets.items() if names]
    return _compared("The code", better, others["tie"], others["worse"])


def _compared(subject: str, better: Sequence[str], tie: Sequence[str], worse: Sequence[str]) -> str:
    return _sentence(subject, {"is better than {}": better, "ties with {}": tie, "is worse than {}": worse})


def _ranked(run: RunFolder) -> dict[str, dict[str, list[str]]]:
    """Baselines of each target that the code is better than, ties with, and is worse than."""
    return {
        target: ranks(run.results.get("probe", target, "differences") or {}, higher_is_better=higher)
        for target, higher in (("diagnosis", True), ("age", False))
    }


def _images(run: RunFolder) -> str:
    """Whether the decoder uses the code, and what edits toward the diagnosis change."""
    verdict, share, other = (
        run.results.get("code_usage", *keys) for keys in (("verdict",), ("share", "value"), ("shuffled_share", "value"))
    )
    sentences = []
    if verdict is not None:
        uses = {"used": "The decoder uses the code", "undecided": "It is undecided whether the decoder uses the code"}
        used = uses.get(verdict, "The decoder does not use the code")
        if isinstance(share, int | float) and isinstance(other, int | float):
            own, others = (fixed(100 * each, 0, " %") for each in (share, other))
            used += f" (explained variance {own} with the own code, {others} with another subject's)"
        sentences.append(used)
    trends = volume_trends(run)
    edits = _sentence(
        f"{'edits' if sentences else 'Edits'} toward {run.classes[0]}",
        {
            "change {} as expected at every step": trends["along"],
            "change {} as expected, but not at every step": trends["unsteady"],
            "change {} in the wrong direction": trends["against"],
        },
    )
    return "; ".join(filter(None, [*sentences, edits]))


def _sessions(run: RunFolder) -> str:
    """The change error against methods without a model."""
    errors = run.results.get("interpolate", "change_error")
    own = errors.get(run.own_method) if isinstance(errors, Mapping) else None
    if not isinstance(own, int | float):
        return ""
    known = run.results.get("interpolate", "differences", "change_error", run.own_method) or {}
    found = ranks({name: each for name, each in known.items() if name in RIVALS}, higher_is_better=False)
    better, tie, worse = (
        [f"{RIVALS[name]} ({fixed(errors.get(name))})" for name in found[rank]] for rank in ("better", "tie", "worse")
    )
    subject = f"The prediction of a missing session (change error {fixed(own)})"
    return _compared(subject, better, tie, worse) or f"{subject} was not compared"


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
    return f"Doubts: {'; '.join([*reasons, 'intervals leave out that another training gives another model'])}."
