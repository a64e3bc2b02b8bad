"""The phantom's anatomy: deformation, tissue, label maps, and what surrounds the brain."""
