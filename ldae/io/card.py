"""The model card that travels with the weights."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

TEMPLATE = """---
license: {licence}
library_name: ldae
tags: [medical-imaging, brain-mri, diffusion-autoencoder, representation-learning]
---

# Latent diffusion autoencoder

A compression autoencoder, a latent denoiser, a gradient estimator and a semantic encoder, {origin}
(method: arXiv 2504.08635, after PDAE, arXiv 2212.12990).

**Not a medical device.** Reconstructed, edited and sampled images are synthetic and not for diagnosis.

## Load

```python
import ldae

model = ldae.from_pretrained("this/folder")
codes = model.encode("head.nii.gz")
```

## Input contract

{scan}. In MNI152 space by a rigid or affine transform, the model's
grid is {shape} voxels of {voxel_size_mm:g} mm around {centre_mm} mm; brain percentiles {percentiles} become 0 and 1.

## Parameters

{parameters}

## Training

{facts}

## Configuration

```json
{config}
```
"""


def model_card(
    config: Mapping[str, Any],
    parameters: Mapping[str, int],
    facts: Mapping[str, str],
    *,
    origin: str = "trained with `ldae`",
    licence: str = "apache-2.0",
) -> str:
    """A card in Markdown.

    Args:
        config: plain configuration of the autoencoder.
        parameters: count by network.
        facts: of the training, by name.
        origin: where the weights come from.
        licence: of the weights.
    """
    contract = config["preprocessing"]
    modality = contract.get("modality", "T1w")
    return TEMPLATE.format(
        origin=origin,
        licence=licence,
        shape=tuple(contract["shape"]),
        voxel_size_mm=contract["voxel_size_mm"],
        centre_mm=tuple(contract["centre_mm"]),
        scan=f"{'A T1w head, which is preprocessed; or a' if modality == 'T1w' else f'A {modality}'} brain alone, background 0",
        percentiles=tuple(contract["percentiles"]),
        parameters="\n".join(f"- {name}: {count:,}" for name, count in parameters.items() if count),
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()) or "No facts were recorded.",
        config=json.dumps(config, indent=2),
    )
