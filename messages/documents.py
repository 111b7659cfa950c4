"""A reference to a body that may outgrow a message: where it is, how long, and its SHA-256."""

import hashlib

import msgspec

from messages.ids import Count, Sha256

INLINE_LIMIT_BYTES = 128 * 1024
"""Bodies up to this size travel inside the message, so that a tap shows them; NATS allows 1 MiB."""
# msgspec takes Raw in no union: the JSON null stands for "not here".
_ABSENT = msgspec.Raw(b"null")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON body by reference: `inline` when small, else object `name` of `bucket` on the bus."""

    sha256: Sha256
    size_bytes: Count
    bucket: str = ""
    name: str = ""
    inline: msgspec.Raw = msgspec.field(default_factory=lambda: _ABSENT)

    @property
    def body(self) -> bytes | None:
        """The body where it travels within the message, else None. Not verified."""
        return None if self.inline == _ABSENT else bytes(self.inline)

    @classmethod
    def of_small(cls, body: bytes) -> "Document":
        """The document that carries `body` within itself."""
        return cls(sha256=digest_of(body), size_bytes=len(body), inline=msgspec.Raw(body))


def digest_of(body: bytes) -> Sha256:
    """The SHA-256 of `body` as lower-case hexadecimal."""
    return Sha256(hashlib.sha256(body).hexdigest())
