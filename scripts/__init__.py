"""What `make build` runs: checks of the templates and the state machine, and the build itself."""
