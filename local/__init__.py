"""The system on one machine: embedded AWS, simulated ComfyUI servers, the command line."""
