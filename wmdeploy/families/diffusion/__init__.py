"""Diffusion world models: the next frame by denoising steps on the last frames and actions."""
