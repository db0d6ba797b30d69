"""The ports' real forms: the only importers of boto3, requests and websocket."""
