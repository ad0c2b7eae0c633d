"""The problems of servers, each said once, causes before consequences. No I/O."""

import re
from collections.abc import Iterable

from loader.web.views import ClusterView

CONSEQUENCES = ("CLUSTERDOWN", "cluster_state")  # of another server that is away
NODE = re.compile(r"redis (\S+?):? (.+)")


def told_once(problems: Iterable[str]) -> tuple[str, ...]:
    """Problems without repetition: what several masters answer alike is one, what follows from others comes last."""
    nodes: dict[str, list[str]] = {}
    for each in dict.fromkeys(problems):
        found = NODE.fullmatch(each) if _follows(each) else None
        nodes.setdefault(found[2] if found else each, []).append(found[1] if found else "")
    texts = [f"redis {', '.join(of)}: {text}" if all(of) else text for text, of in nodes.items()]
    return tuple(sorted(texts, key=_follows))


def unsaid(cluster: ClusterView, problems: Iterable[str]) -> list[str]:
    """The problems of the cluster that are neither among those of the page nor of one of its masters."""
    said = {*problems, *(node.problem for node in cluster.nodes)}
    return [each for each in cluster.problems if each not in said]


def causes(problems: Iterable[str]) -> list[str]:
    """The problems that follow from no other; all, if none is told that could be why."""
    problems = list(problems)
    return [each for each in problems if not _follows(each)] or problems


def is_cause(problem: str, problems: Iterable[str]) -> bool:
    """Whether a problem follows from none of the others."""
    return problem in causes([problem, *problems])


def _follows(text: str) -> bool:
    return any(word in text for word in CONSEQUENCES)
