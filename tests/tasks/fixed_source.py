"""Images and latents of scans that no file holds."""

import numpy as np
import torch


class FixedSource:
    """Stands for :class:`~ldae.tasks.encode.ScanSource`, by the scans' keys."""

    def __init__(self, records, images, latents=None):
        self.by_key = {record.key: row for row, record in enumerate(records)}
        self.of_images, self.of_latents = images, latents

    def rows(self, records):
        return [self.by_key[record.key] for record in records]

    def images(self, records):
        return np.asarray(self.of_images)[self.rows(records)]

    def latents(self, records, images=None, *, mirrored=False):
        return torch.as_tensor(self.of_latents)[self.rows(records)]
