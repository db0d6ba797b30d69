"""ml-service: a backend's media jobs, run on a fleet of ComfyUI servers."""
