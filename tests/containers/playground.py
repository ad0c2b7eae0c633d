"""Types what docker/README.md tells people to type, in a copy of the project, and compares it with what the page shows.

Images that the engine lacks are made of Debian's packages, but for Grafana, which is left out. Nothing is left in the
engine but its build cache.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from ruamel.yaml import YAML

from images import SERVERS, Unusable, absent, can_stand_in, docker, stand_in
from replayed import Step, steps

ROOT = Path(__file__).parents[2]
PROJECT = "loader"  # of compose.yaml
LABEL = "org.opencontainers.image.title=loader"  # of the Dockerfile
LOOKS = re.compile(r"docker compose (?:exec|logs|ps) ")
PATIENCE = 90.0  # seconds until a look must show what the page shows
ENDLESS, ENDED = " -f ", 3.0  # in a command that a person ends, and the seconds after which it is
LATEST = 900.0  # seconds that a command may take
MOMENTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds after its start at which a daemon is stopped
STOPPED = 5.0  # seconds that it may take to end
SECRETS = {"apt.conf": "LOADER_IMAGE_APT_CONF", "pip.conf": "LOADER_IMAGE_PIP_CONF", "ca.crt": "LOADER_IMAGE_CA"}
KINDS = ("container", "volume", "network")
yaml = YAML()


class Failed(Exception):  # a finding, not an error of this program
    """What is not as the page says."""


class Typist:
    """A shell in a directory, which keeps what commands export."""

    def __init__(self, directory: Path, state: Path) -> None:
        self._directory = directory
        self._state = state
        state.touch()

    def type(self, command: str) -> tuple[int, str]:
        """Carry out a command, and return its exit code and all that it printed; an endless one is ended."""
        process = subprocess.Popen(
            ["bash", "-c", f". {self._state}; trap 'export -p >{self._state}' EXIT\n{command}\n"],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=ENDED if ENDLESS in command else LATEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            printed, _ = process.communicate()
            return 0 if ENDLESS in command else 1, printed
        return process.returncode, printed

    def follow(self, step: Step) -> None:
        """Carry out a step of the page; a look is repeated until it shows what the page shows."""
        print(f"  $ {step.command}", flush=True)
        began = time.monotonic()
        while True:
            code, printed = self.type(step.command)
            if (code != 0) == step.fails and step.printed(printed):
                return
            if not LOOKS.search(step.command) or time.monotonic() - began > PATIENCE:
                shown = "\n".join(step.shown)
                raise Failed(
                    f"{step.command}\nexit code {code}; it printed\n\n{printed}\nand the page shows\n\n{shown}"
                )
            time.sleep(1)


def check_engine() -> None:
    """Raise `Unusable` if there is no engine, no compose, or a playground that somebody uses."""
    for words, lacking in {
        ("version",): "a container engine",
        ("compose", "version"): "docker compose, version 2",
        ("buildx", "version"): "docker buildx",
    }.items():
        try:
            docker(*words)
        except (Unusable, OSError) as error:
            raise Unusable(f"it needs {lacking}, which scripts/engine.sh brings; {error}") from None
    if any(held(f"label=com.docker.compose.project={PROJECT}")):
        raise Unusable(f"a playground is there already: docker compose -p {PROJECT} down -v")


def held(*filters: str) -> Iterator[str]:
    """Yield the containers, volumes and networks in the engine."""
    for kind in KINDS:
        words = ["--all"] if kind == "container" else []
        for each in filters:
            words += ["--filter", each]
        yield from (f"{kind} {name}" for name in docker(kind, "ls", "--quiet", *words).split())


def copied(home: Path) -> Path:
    """Copy the files of the project, and return the copy of docker/."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / name)
    return home / "docker"


def secrets() -> Mapping[str, str]:
    """The files that package clients in the build are handed, by the names that the Dockerfile has for them."""
    return {name: path for name, variable in SECRETS.items() if (path := os.environ.get(variable))}


def adapt(compose: Path, left_out: Sequence[str]) -> None:
    """Leave out services of images that cannot be had, and hand in the settings of package clients."""
    document = yaml.load(compose)
    for service in document["services"].values():
        if service["image"] in left_out:
            service["profiles"] = ["left out"]
    if secrets():
        document["services"]["loader"]["build"]["secrets"] = list(secrets())
        document["secrets"] = {name: {"file": path} for name, path in secrets().items()}
    yaml.dump(document, compose)


@contextmanager
def images(directory: Path) -> Iterator[Sequence[str]]:
    """Have all images that can be had; yields those that cannot."""
    document = yaml.load(directory / "compose.yaml")
    wanted = {service["image"] for service in document["services"].values()} - {PROJECT}
    wanted |= set(re.findall(r"^FROM (\S+)", (directory / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    lacking = sorted(absent(wanted))
    brought = [name for name in lacking if can_stand_in(name)]
    made = [*brought, *absent([SERVERS, PROJECT])]
    try:
        for name in brought:
            print(f"  {name}", flush=True)
            stand_in(name)
        yield sorted(set(lacking) - set(brought))
    finally:
        for name in set(made) - set(absent(made)):
            docker("image", "rm", "--force", name)
        docker("image", "prune", "--force", "--filter", f"label={LABEL}")  # built again, it lost its name


def check_pages(text: str, left_out: bool) -> None:  # noqa: FBT001  # the page alone says it
    """Raise `Failed` if a page that the text names does not answer, or Prometheus is not content."""
    for url in re.findall(r"<(http://127\.0\.0\.1:\S+)>", text):
        if left_out and ":3000" in url:
            continue
        with urlopen(url, timeout=10) as answer:
            print(f"  {url}: {answer.status}", flush=True)
    with urlopen("http://127.0.0.1:9090/api/v1/query?query=up+unless+on()+ALERTS", timeout=10) as answer:
        told = answer.read().decode()
    if not re.search(r'"job":"loader".*"value":\[[\d.]+,"1"\]', told):
        raise Failed(f"Prometheus does not reach the daemon, or an alert fires: {told}")


def check_stops(typist: Typist) -> None:
    """Raise `Failed` if a daemon that is stopped while it starts does not end at once, or not with 0."""
    for moment in MOMENTS:
        name = f"{PROJECT}-stopped"
        options = "--no-healthcheck --read-only -v ./config:/etc/loader:ro --network loader_default"
        values = "-e MYSQL_URL=mysql://loader@mysql:3306/school -e MYSQL_PASSWORD=playground"
        values += " -e REDIS_URL=redis://loader@redis-1:6379 -e REDIS_PASSWORD=playground"
        code, printed = typist.type(f"docker run -d --name {name} {options} {values} {PROJECT} && sleep {moment}")
        if code:
            raise Failed(printed)
        began = time.monotonic()
        docker("stop", "--time", "30", name)
        took = time.monotonic() - began
        ended = docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        docker("rm", name)
        if ended != "0" or took > STOPPED:
            raise Failed(f"stopped {moment} s after its start, the daemon ended with {ended} after {took:.1f} s")


def play(directory: Path, left_out: Sequence[str]) -> None:
    """Carry out the page from its beginning to its end."""
    text = (directory / "README.md").read_text(encoding="utf-8")
    typist = Typist(directory, directory.parent / "state")
    section = ""
    for step in steps(text):
        if step.section != section:
            if section == "Watch it":
                check_pages(text, bool(left_out))
            if section == "Change the config":
                check_stops(typist)
            section = step.section
            print(f"\n== {section} ({time.strftime('%H:%M:%S')})", flush=True)
        typist.follow(step)


def take_down(directory: Path, before: AbstractSet[str]) -> None:
    """Remove all containers, volumes and networks that were not there before."""
    files = os.environ | {"COMPOSE_FILE": "compose.yaml:compose.tls.yaml"}
    command = ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5"]
    subprocess.run(command, cwd=directory, env=files, check=False, capture_output=True)
    for kind, name in sorted(each.split() for each in set(held()) - before):
        docker(kind, "rm", "--force", name)


def main() -> None:
    """Exit with 1 and the reason if the page does not hold, or there is no engine to try it with."""
    try:
        check_engine()
        before = set(held())
        with tempfile.TemporaryDirectory(prefix="loader-image-") as home:
            directory = copied(Path(home))
            print("== images", flush=True)
            with images(directory) as left_out:
                adapt(directory / "compose.yaml", left_out)
                try:
                    play(directory, left_out)
                    if left := set(held()) - before:
                        raise Failed(f"the page leaves behind {', '.join(sorted(left))}")
                finally:
                    take_down(directory, before)
    except (Unusable, Failed) as error:
        sys.exit(f"image: {error}")
    print("\n== all is as docker/README.md shows it")


if __name__ == "__main__":
    main()
