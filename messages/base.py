"""The roots every message inherits: a tagged frozen struct, and the facts that belong to a job."""

import msgspec

from messages.ids import Generation, JobId, NodeId


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Anything that travels; `type` names it, and unknown fields of a newer writer are ignored."""


class Fact(Message, frozen=True, kw_only=True):
    """Something that happened in a job, said once on a subject of its own.

    `origin` is the node whose disk holds the model; a job tried or planned again is a new
    `generation`. Facts carry no time of their own: the server's timestamp is the one clock.
    """

    origin: NodeId
    job_id: JobId
    generation: Generation = 1
