"""Networks: compression, denoiser, gradient estimator, semantic encoders."""
