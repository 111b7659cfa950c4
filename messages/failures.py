"""The two roots of every error: what will not pass (it ends the job) and what may (retried)."""


class Permanent(Exception):
    """Trying again cannot help; the job ends with this reason and this advice.

    `reason` says what happened and to what, `advice` what to do next. Neither may hold a secret.
    """

    def __init__(self, reason: str, *, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class Passing(Exception):
    """Trouble that may pass: the message is handed back and tried again after a growing delay.

    `after_s` is how long the other side asked to wait, at least; 0 where it did not say.
    """

    def __init__(self, reason: str = "", *, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s
