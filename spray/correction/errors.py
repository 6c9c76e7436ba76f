"""What cannot be corrected, and why."""


class CorrectionError(ValueError):
    """A correction that cannot be made; the message says what came, what is needed, and the next move."""
