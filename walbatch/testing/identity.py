"""Who is who in a project: the links that were sent, and the clusters of ids that they make. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CLUSTER = 500
"""Ids that one user can have with Original ID Merge."""


@dataclass(frozen=True, slots=True)
class Link:
    """Two ids that an event declared to be one user. `linked` is false if it had no effect."""

    event: str
    first: str
    second: str
    linked: bool


class Identities:
    """The links of a project in order of arrival, and the clusters by union-find."""

    def __init__(self, max_cluster: int | None = MAX_CLUSTER) -> None:
        self._max_cluster = max_cluster
        self.links: list[Link] = []
        """Every link that was sent, again and again if it was sent again and again."""
        self._clusters: dict[str, set[str]] = {}

    def link(self, event: str, first: str, second: str, *, effective: bool = True) -> None:
        """Note a link. It has no effect if it is not `effective`, or if the cluster would hold too many ids."""
        ours, theirs = self.cluster(first), self.cluster(second)
        linked = effective and (self._max_cluster is None or len(ours | theirs) <= self._max_cluster)
        self.links.append(Link(event, first, second, linked))
        if linked:
            merged = ours | theirs
            self._clusters.update(dict.fromkeys(merged, merged))

    def cluster(self, one: str) -> set[str]:
        """Return all ids of the user that has this id: at least the id itself. A copy."""
        return set(self._clusters.get(one, {one}))

    def clusters(self) -> list[set[str]]:
        """Return every cluster of two ids and more."""
        return [set(one) for one in {id(cluster): cluster for cluster in self._clusters.values()}.values()]
