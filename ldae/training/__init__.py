"""One LightningModule a stage, and what runs them."""
