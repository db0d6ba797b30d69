"""The web pages of local mode: fleets, jobs, and a form for every workflow."""
