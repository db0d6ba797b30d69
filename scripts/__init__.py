"""What `make build`, `make emulate` and `make costs` run, and what puts models into S3."""
