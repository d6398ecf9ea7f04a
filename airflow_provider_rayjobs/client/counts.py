"""Counts what is sent to a cluster. Whoever has made a transport takes the numbers from it, and tells others."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Counts:
    """
    What was sent to a cluster since the numbers were last taken. Transports of one thread can share it.

    :param requests: HTTP requests, with those that were repeated, and log streams that were opened.
    :param upload_bytes: bytes of packages that were stored on the cluster or in object storage.
    :param adopted: submissions whose job was found by a look-up, because no answer told that it was accepted.
    """

    requests: int = 0
    upload_bytes: int = 0
    adopted: int = 0

    def adopt(self) -> None:
        """Count a submission whose job was found by a look-up."""
        self.adopted += 1

    def take(self) -> Counts:
        """Return the numbers, and begin at zero again."""
        taken = replace(self)
        self.requests = self.upload_bytes = self.adopted = 0
        return taken
