"""Every task on the held-out subjects of a manifest."""
