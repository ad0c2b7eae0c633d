"""Images that stand in for those that the playground pulls, made of Debian's packages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOTS = Path(os.environ.get("LOADER_IMAGE_ROOTS", Path.home() / ".cache" / "mysql-redis-loader"))
SERVERS = "loader-test-servers"  # the image that those of all servers are made from
SUITES = {"python": "trixie", "servers": "sid"}  # python:3.13-slim is made from trixie; the newest servers are in sid
PACKAGES = {
    "python": "python3,python3-dev,python3-pip,python3-venv",
    "servers": "mysql-server-core,mysql-client-core,redis-server,prometheus,openssl",
}
TARGETS = {"mysql": "mysql", "redis": "redis", "prom/prometheus": "prometheus"}  # of images/Dockerfile


class Unusable(Exception):  # it is no error of this program
    """What this machine lacks, in a sentence."""


def docker(*words: str, **options: object) -> str:
    """Run docker, and return what it prints."""
    done = subprocess.run(["docker", *words], check=False, capture_output=True, encoding="utf-8", **options)
    if done.returncode:
        raise Unusable(f"docker {' '.join(words[:2])}: {done.stderr.strip()}")
    return done.stdout


def absent(names: Iterable[str]) -> Iterator[str]:
    """Yield the images that the engine does not have."""
    for name in names:
        if subprocess.run(["docker", "image", "inspect", name], check=False, capture_output=True).returncode:
            yield name


def stand_in(name: str) -> None:
    """Make an image under a name that would be pulled otherwise."""
    repository = name.partition(":")[0]
    if repository == "python":
        _import("python", name)
        return
    if list(absent([SERVERS])):
        _import("servers", SERVERS)
    docker("build", "--target", TARGETS[repository], "--tag", name, str(HERE / "images"))


def can_stand_in(name: str) -> bool:
    """Whether there are packages for an image."""
    return name.partition(":")[0] in {"python", *TARGETS}


def _import(kind: str, name: str) -> None:
    tar = subprocess.Popen(["tar", "-C", _root(kind), "-c", "."], stdout=subprocess.PIPE)
    docker("import", "-", name, stdin=tar.stdout)
    if tar.wait():
        raise Unusable(f"tar cannot read {ROOTS}")


def _root(kind: str) -> Path:
    """A directory with a Debian and these packages, which is made once."""
    root = ROOTS / f"image-{kind}"
    if root.is_dir():
        return root
    if os.geteuid() or not (debootstrap := shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")):
        raise Unusable("to make base images, it must be run by root, and needs the package debootstrap")
    mirror = subprocess.run([HERE.parents[1] / "scripts" / "mirror.sh"], check=True, capture_output=True)
    new, log = root.with_suffix(".new"), root.with_suffix(".log")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was broken off
    ROOTS.mkdir(parents=True, exist_ok=True)
    words = [debootstrap, "--variant=minbase", f"--include={PACKAGES[kind]}", SUITES[kind], str(new)]
    with log.open("wb") as file:
        if subprocess.run([*words, mirror.stdout.decode().strip()], stdout=file, stderr=file, check=False).returncode:
            sys.stderr.write("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-5:]))
            raise Unusable(f"debootstrap failed; its output is in {log}")
    if kind == "python":
        (new / "usr/local/bin/python").symlink_to("../../bin/python3")
    for package in (new / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    return new.rename(root)
