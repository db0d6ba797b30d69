"""The chaos run: many jobs on a local mode whose parts die, and the proof that none was lost."""
