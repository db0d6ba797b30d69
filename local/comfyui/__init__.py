"""A simulated ComfyUI server: the real protocol, real media files, no models and no GPU."""
