"""What the scaler would do with the arrivals of a trace, told without any server."""
