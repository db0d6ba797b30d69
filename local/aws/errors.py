"""What can keep the embedded AWS from starting; each text is one sentence for its user."""


class EmbeddedAwsError(Exception):
    """When the embedded AWS cannot do what it was asked, for a reason that its user can mend."""


class PortInUseError(EmbeddedAwsError):
    """When another process listens on the port that was asked for."""


class LoopbackAddressError(EmbeddedAwsError):
    """When this system has no 127.0.N.x addresses free for the simulated instances."""


class TemplateError(EmbeddedAwsError):
    """When a template asks for something that cannot be deployed here, or is wrong."""


class MotoError(EmbeddedAwsError):
    """When the moto process did not start."""
