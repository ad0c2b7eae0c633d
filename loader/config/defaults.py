"""The `defaults` of a config: keys that all jobs have unless they have them themselves."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from loader.config.files import Document, Keys, Problem

OF_ONE_JOB = ("table", "tables", "query")  # exclude each other, so none of them suits all jobs
DESCRIPTION = "Keys that every job has unless it has them itself."


class Defaults:
    """The defaults of a document, which are merged into its jobs; a job's own key wins, whatever its value."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._heirs: dict[str, set[str]] = {}  # of each key the jobs that do not have it themselves
        given = document.values.pop("defaults", {})
        if not isinstance(given, dict):
            document.report(("defaults",), "must be a mapping of the keys of jobs to values")
            return
        for key in OF_ONE_JOB:
            if key in given:
                place = document.keys["defaults", key]
                document.problems.append(Problem(place, ("defaults", key), "belongs to a job, not to all of them"))
        shared = {key: value for key, value in given.items() if key not in OF_ONE_JOB}
        self._merge(shared)

    def _merge(self, shared: dict[str, Any]) -> None:
        jobs = self._document.values.get("jobs")
        if not isinstance(jobs, dict):
            return
        for name, job in jobs.items():
            if isinstance(job, dict):
                for key in shared.keys() - job.keys():
                    self._heirs.setdefault(key, set()).add(name)
                jobs[name] = shared | job

    def told(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """The problems, those of a default once and at its place if all jobs that have it from there share them."""
        shared: dict[tuple[Keys, str], list[Problem]] = defaultdict(list)
        for problem in problems:
            kind, name, key = (*problem.path[:3], "", "", "")[:3]
            if kind == "jobs" and name in self._heirs.get(str(key), ()):
                shared[("defaults", *problem.path[2:]), problem.message].append(problem)
            else:
                yield problem
        for (path, message), same in shared.items():
            if len(same) < len(self._heirs[str(path[1])]):
                yield from same
            elif path not in self._document.unknown:
                is_key = message.startswith("unknown key")
                yield Problem((self._document.keys[path] if is_key else self._document.place(path)), path, message)


def add_schema(schema: dict[str, Any]) -> None:
    """Describe `defaults`, and that a source is required, in the JSON schema of a config."""
    job = schema["$defs"]["JobConfig"]
    schema["$defs"]["JobDefaults"] = {
        "type": "object",
        "additionalProperties": False,
        "description": DESCRIPTION,
        "properties": {key: value for key, value in job["properties"].items() if key not in OF_ONE_JOB},
    }
    schema["properties"]["defaults"] = {"$ref": "#/$defs/JobDefaults"}
    for name in ("source", "sources"):  # each is a mapping if it is there at all
        found = schema["properties"][name]
        found.pop("default")
        (kind,) = (each for each in found.pop("anyOf") if each != {"type": "null"})
        found |= kind
    schema["oneOf"] = [{"required": ["source"]}, {"required": ["sources"]}]
