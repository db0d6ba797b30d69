"""An AWS account in a few local processes: the real template deployed, the real handlers run.

moto answers the AWS API and interprets state machines; what it lacks stands here: a Lambda runtime,
event source mappings, EventBridge rules, and servers behind the instances of Auto Scaling groups.
"""
