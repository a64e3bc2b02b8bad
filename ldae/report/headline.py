"""The first metrics of a run in words, a line a task."""

from collections.abc import Mapping
from typing import Any

__all__ = ["first_results"]

BASELINES = {
    "random_encoder": "random encoder",
    "latent_pca": "components of the latents",
    "latent_pca_symmetric": "left-right symmetric components",
}
RIVALS = {
    "voxel_trajectory": "voxels on the same line",
    "voxel_linear": "voxel blend",
    "copy_nearest": "nearest copy",
}


def first_results(results: Mapping[str, Any]) -> list[str]:
    """The first metrics of each task that was run, a line each."""
    lines = []
    for name, metric, words in (("diagnosis", "auc", "diagnosis, AUC"), ("age", "mae", "age, mean error in years")):
        if (found := results.get("probe", {}).get(name)) is not None:
            own = found[metric]
            value = f"{words}: {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
            lines.append("; ".join([value, *_beside(found["baselines"], BASELINES)]))
    if "reconstruct" in results:
        both, ceiling = results["reconstruct"]["ssim"], results["compression"]["ssim"]
        lines.append(f"reconstruction, SSIM: {both:.3f}; ceiling {ceiling:.3f}")
    if "interpolate" in results:
        errors = results["interpolate"]["change_error"]
        value = f"missing session, change error: {errors[results['interpolate']['own']]:.3f}"
        lines.append("; ".join([value, *_beside(errors, RIVALS)]))
    return lines


def _beside(values: Mapping[str, float], words: Mapping[str, str]) -> list[str]:
    return [f"{word} {values[name]:.3f}" for name, word in words.items() if name in values]
