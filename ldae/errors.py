"""Exceptions whose message states what is wrong, what was got, and the remedy."""

__all__ = [
    "CheckpointError",
    "CohortError",
    "ConfigError",
    "DependencyError",
    "LdaeError",
    "ManifestError",
    "NonFiniteError",
    "OutputError",
    "TaskError",
    "TrainingError",
    "VolumeError",
]


class LdaeError(Exception):
    """Base of every error that a user can mend; the command line prints it as one paragraph and exits with 2."""


class VolumeError(LdaeError):
    """An image file or array that is not a finite, three-dimensional scalar volume."""


class NonFiniteError(VolumeError):
    """A volume that holds NaN or infinity."""


class ManifestError(LdaeError):
    """A cohort table that violates the manifest schema."""


class ConfigError(LdaeError):
    """An experiment configuration with unknown keys, wrong types or impossible values."""


class CheckpointError(LdaeError):
    """A model folder or weights file that is missing, incomplete or does not fit."""


class CohortError(LdaeError):
    """A cohort that cannot be generated, imported or preprocessed."""


class OutputError(LdaeError):
    """A file or folder that holds something and must not be overwritten."""


class TrainingError(LdaeError):
    """Training that cannot go on: a non-finite loss, an empty split, a changed configuration."""


class PeerLostError(TrainingError):
    """Training that ended because another of its processes had."""


class TaskError(LdaeError):
    """A task whose inputs cannot answer its question."""


class DependencyError(LdaeError):
    """An optional dependency that is not installed; the message names the extra to install."""
