"""The CloudWatch dashboard as a picture, with what local mode has measured."""
