"""The rules of ml-service, pure: no clock, no environment, no input or output, no logging."""
