"""What people deploy, as far as it can be looked at without a container engine: docker/ and deploy/."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

import kubernetes_validate
import pytest
import redis
from cryptography import x509
from cryptography.x509 import verification
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from redis.cluster import RedisCluster
from ruamel.yaml import YAML

from loader.config.load import load_config
from loader.lab.process import HOST, Server, free_ports, program, stop, wait
from loader.redis.acl import REDIS_RIGHTS
from loader.web.metrics import Metrics
from replayed import Step, steps
from support.command import finish, start
from support.promtool import promtool, wanted

ROOT = Path(__file__).parents[2]
DOCKER, DEPLOY = ROOT / "docker", ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "loader.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
CONFIG = DOCKER / "config" / "loader.yaml"
PLAYGROUND = "playground"  # every password there
BINARIES = Path(sys.executable).parent


def documents(path):
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


def checked(*words):
    """What a checker, installed beside this Python, has to say; empty where it finds nothing."""
    command = [BINARIES / words[0], *map(str, words[1:])]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def compose(name="compose.yaml"):
    return documents(DOCKER / name)[0]


def page():
    """What docker/README.md has people type."""
    return list(steps((DOCKER / "README.md").read_text(encoding="utf-8")))


# docker/


def test_the_dockerfile():
    """hadolint finds nothing, but for what the file says beside it; what may be copied is there."""
    assert checked("hadolint", DOCKER / "Dockerfile") == ""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert [name for name in kept if not (ROOT / name).exists()] == []
    pinned = re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(pinned) == {"python:3.13-slim"}


def test_the_compose_file():
    """It is valid; images have a version, ports are this machine's alone, and each file that is mounted is there."""
    for name in ("compose.yaml", "compose.tls.yaml"):
        assert checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / name) == ""
    services = compose()["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith(".")]

    assert [name for name, each in services.items() if ":" not in each["image"]] == ["loader"]  # which is built here
    assert [each["image"] for each in services.values() if each["image"].endswith(":latest")] == []
    assert [port for each in services.values() for port in each.get("ports", []) if not port.startswith(HOST)] == []
    assert [file for file in files if not (DOCKER / file).exists()] == []
    assert set(mounts) - set(files) == set(compose()["volumes"])
    addresses = [each["networks"]["default"]["ipv4_address"] for name, each in services.items() if "redis-" in name]
    assert len(set(addresses)) == 7


def test_what_an_image_declares_is_mounted():
    """No container makes a volume without a name, which nothing would remove."""
    declared = {"mysql": "/var/lib/mysql", "redis": "/data", "prom/prometheus": "/prometheus"}
    for document in (compose(), compose("compose.tls.yaml")):
        for name, service in document["services"].items():
            place = declared.get(service.get("image", "").partition(":")[0])
            mounted = [mount.split(":")[1] for mount in service.get("volumes", [])] + service.get("tmpfs", [])
            assert place is None or place in mounted, name


def test_the_config_is_mounted_with_its_directory():
    """So a file that an editor puts in its place is seen, and the config for TLS lies beside it."""
    assert compose()["services"]["loader"]["volumes"] == ["./config:/etc/loader:ro"]
    added = compose("compose.tls.yaml")["services"]["loader"]["environment"]["LOADER_CONFIG"]
    assert [DOCKER / "config" / Path(name).name for name in added.split(":")] == [CONFIG, CONFIG.with_name("tls.yaml")]


def test_mysql_speaks_utf8():
    """Its image has no locale, in which its client would write and print other characters."""
    assert compose()["services"]["mysql"]["environment"]["LANG"] == "C.UTF-8"
    assert (ROOT / "sql" / "stu.sql").read_text(encoding="utf-8").startswith("SET NAMES utf8mb4;\n")


def test_tls_is_asked_of_all():
    """With TLS, each server of the playground has a certificate for the address that it is dialled by."""
    plain, secure = compose()["services"], compose("compose.tls.yaml")["services"]
    nodes = {name for name in plain if name.startswith("redis-")}
    named = set(secure["certificates"]["command"])
    assert nodes | {"mysql", "loader", "cluster", "certificates"} == secure.keys()
    assert {plain[name]["networks"]["default"]["ipv4_address"] for name in nodes} <= named
    urls = secure["loader"]["environment"]["REDIS_URL"], plain["loader"]["environment"]["MYSQL_URL"]
    assert {name for url in urls for name in re.findall(r"[@,]([\w-]+):", url)} <= named
    assert all("--port 0" in secure[name]["command"] for name in nodes)
    assert "--require-secure-transport=ON" in secure["mysql"]["command"]


def test_the_certificates(tmp_path):
    """They are an authority's, strictly made, for names and addresses; made once, they stay."""
    words = ["sh", DOCKER / "certificates.sh", tmp_path, "mysql", "10.210.61.11"]
    subprocess.run(words, check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    subprocess.run(words, check=True, capture_output=True)
    authority, server = (x509.load_pem_x509_certificate(made[name]) for name in ("ca.crt", "server.crt"))

    assert made.keys() == {"ca.crt", "server.crt", "server.key"}
    assert made == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    store = verification.Store([authority])
    for name in (x509.DNSName("mysql"), x509.IPAddress(ip_address("10.210.61.11"))):
        verification.PolicyBuilder().store(store).build_server_verifier(name).verify(server, [])


def test_the_container_has_no_rights():
    """It needs none, and none can be gained in it."""
    service = compose()["services"]["loader"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_accounts_of_the_playground():
    """They are those that docs/security.md tells people to make."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    accounts = (DOCKER / "accounts.sql").read_text(encoding="utf-8")
    told = re.findall(r"^((?:CREATE USER|GRANT) .*;)$", page, re.MULTILINE)
    assert [line for line in accounts.replace(PLAYGROUND, "…").splitlines() if not line.startswith("--")] == told
    (user,) = re.findall("^user (.*)$", (DOCKER / "redis.conf").read_text(encoding="utf-8"), re.MULTILINE)
    assert user == f"loader on >{PLAYGROUND} ~stu_* ~loader:* {REDIS_RIGHTS}"


@wanted
def test_the_prometheus_of_the_playground(tmp_path):
    """Its config is one, with the alerts; a metric's `job` stays the loader's."""
    for path in (DOCKER / "prometheus.yaml", ALERTS):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert promtool("check", "config", "prometheus.yaml", cwd=tmp_path) == ""
    (scrape,) = documents(DOCKER / "prometheus.yaml")[0]["scrape_configs"]
    assert (scrape["job_name"], scrape["honor_labels"]) == ("loader", True)


def test_the_grafana_of_the_playground():
    """The dashboards are looked for where compose.yaml mounts ours."""
    (provider,) = documents(DOCKER / "grafana" / "dashboards.yaml")[0]["providers"]
    mounted = [mount.split(":")[1] for mount in compose()["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/{DASHBOARD.name}" in mounted


def test_what_the_story_types():
    """Each command of docker/README.md names services, files and commands of the loader that there are."""
    typed = [step.command.removeprefix("docker compose ") for step in page() if "docker compose" in step.command]
    services = compose()["services"].keys() | compose("compose.tls.yaml")["services"].keys()
    named = [re.findall(r"^(?:exec|kill(?: -s HUP)?|start|logs(?: -\S+)?|run --rm) (\S+)", words) for words in typed]
    ours = {words for each in typed for words in re.findall(r"exec loader loader (\S+)", each)}
    shown = subprocess.run([BINARIES / "loader", "--help"], capture_output=True, check=True, encoding="utf-8").stdout

    assert len(typed) > 15
    assert {name for names in named for name in names} <= services
    assert {path for step in page() for path in re.findall(r"[\w./]+\.yaml", step.command)} <= {
        str(path.relative_to(DOCKER)) for path in DOCKER.rglob("*.yaml")
    }
    assert ours <= set(re.findall(r"^  ([a-z]+) ", shown, re.MULTILINE))


PAGE = """
## One

    $ first \\
        and more
    a …
    …
    3 keys  of   x in 0.05 s, every 30 s
    $ second
text
    no command

    $ third
    ERROR 1: refused
"""


def test_how_the_story_is_read():
    """Commands with the lines shown; gaps and numbers that vary may be anything, and all else is as shown."""
    first, second, third = steps(PAGE)
    assert first == Step("One", "first \\\n        and more", ["a …", "…", "3 keys  of   x in 0.05 s, every 30 s"])
    assert first.printed("before\na b c\nd\n4,100 keys of x in 1.27 s, every 30 s\nafter\n")
    assert not first.printed("a b c\nd\n3 keys of x in 0.05 s, every 10 s\n")
    assert (second.command, second.shown, second.printed("x"), second.fails) == ("second", [], True, False)
    assert (third.shown, third.fails) == (["ERROR 1: refused"], True)


@pytest.fixture
def nodes(tmp_path):
    """The ports of seven nodes that are started as the playground's are, and are in no cluster yet."""
    (tmp_path / "redis-cli").symlink_to(program("redis-cli", "valkey-cli"))
    with ExitStack() as stack:
        yield [stack.enter_context(playground_node(tmp_path / f"redis-{number}")) for number in range(1, 8)]


@contextmanager
def playground_node(home):
    home.mkdir()
    (port,) = free_ports(1)
    server = Server(home.name, port)
    server.spawn(
        [
            program("redis-server", "valkey-server"),
            str(DOCKER / "redis.conf"),
            *("--port", str(port), "--bind", HOST, "--dir", str(home)),
        ],
        home / "log",
    )

    def answers():
        try:
            with redis.Redis(HOST, port) as client:
                return client.info("server")["process_id"] == server.pid
        except redis.ConnectionError:
            return not server.running

    try:
        wait(answers, "redis to answer")
        assert server.running, (home / "log").read_text()
        yield port
    finally:
        stop([server])


def make_cluster(directory, ports):
    """What compose.yaml has its one-shot do, with nodes of this machine."""
    command = compose()["services"]["cluster"]["command"]
    assert command == ["sh", "/cluster.sh", *(f"redis-{number}:6379" for number in range(1, 7))]
    path, name = f"{directory}{os.pathsep}{os.environ['PATH']}", HOST
    with suppress(OSError):  # a bare root knows no name
        name = socket.getaddrinfo("localhost", None) and "localhost"
    done = subprocess.run(
        ["sh", DOCKER / "cluster.sh", *(f"{name}:{port}" for port in ports)],
        env=os.environ | {"PATH": path},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def replicas(ports):
    """How many replicas each master has."""
    counts = []
    for port in ports:
        with redis.Redis(HOST, port) as node:
            replication = node.info("replication")
        if replication["role"] == "master":
            counts.append(replication["connected_slaves"])
    return sorted(counts)


def settings(directory, listen):
    """The playground's config, and one beside it with a port of this machine."""
    config, own = directory / "loader.yaml", directory / "own.yaml"
    config.write_bytes(CONFIG.read_bytes())
    own.write_text(f'daemon: {{listen: "{listen}"}}\n', encoding="utf-8")
    return ["-c", str(config), "-c", str(own)]


def healthy(port):
    """Whether the image's HEALTHCHECK says so."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (words,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, re.MULTILINE)
    python, *rest = json.loads(words)
    assert python == "python"
    command = [sys.executable, *(word.replace("9462", str(port)) for word in rest)]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def test_the_playground(world, nodes, tmp_path):
    """Made twice, it is one cluster of six; its daemon writes the table, by its accounts; a seventh node joins."""
    six, seventh = nodes[:6], nodes[6]
    assert re.search(r"\[OK\] 0 keys in 3 (masters|primaries)", make_cluster(tmp_path, six))
    make_cluster(tmp_path, six)
    assert replicas(six) == [1, 1, 1]

    table = (ROOT / "sql" / "stu.sql").read_text(encoding="utf-8")
    accounts = (DOCKER / "accounts.sql").read_text(encoding="utf-8").replace("loader@", "player@")
    statements = (table + accounts.replace("school", world.name)).split(";")
    world.sql(*(each for each in statements if each.strip()))
    environment = dict(compose()["services"]["loader"]["environment"])
    environment["MYSQL_URL"] = f"mysql://player@{HOST}:{world.lab.mysql_port}/{world.name}"
    for number, port in enumerate(six, 1):
        environment["REDIS_URL"] = environment["REDIS_URL"].replace(f"redis-{number}:6379", f"{HOST}:{port}")
    (port,) = free_ports(1)
    process = start(*settings(tmp_path, f":{port}"), "daemon", cwd=tmp_path, **environment)
    try:
        with RedisCluster(host=HOST, port=six[0]) as client:
            wait(lambda: client.hget("stu_00000005", "sname") == "沈浪".encode(), "the first run")
        assert healthy(port)
    finally:
        process.terminate()
        result = finish(process)
        world.sql("DROP USER player@'%'")
    refused = [entry["object"] for node in six for entry in acl_log(node)]

    assert result.code == 0
    assert not healthy(port)
    assert refused == []
    make_cluster(tmp_path, [six[0], seventh])
    assert replicas(nodes) == [1, 1, 2]


def acl_log(port):
    with redis.Redis(HOST, port) as node:
        return node.acl_log()


# deploy/


def test_the_configs_that_are_shown(tmp_path, monkeypatch):
    """The playground's and Kubernetes' are configs."""
    for name, value in compose()["services"]["loader"]["environment"].items():
        monkeypatch.setenv(name, value)
    playground = load_config([Path(word) for word in settings(tmp_path, ":9462") if word != "-c"])
    (mapped,) = [each for path in KUBERNETES for each in documents(path) if each["kind"] == "ConfigMap"]
    text = mapped["data"]["loader.yaml"]
    for name in ("mysql", "redis"):
        (tmp_path / name).write_text(PLAYGROUND, encoding="utf-8")
    (tmp_path / "mapped.yaml").write_text(text.replace("/run/secrets/loader", str(tmp_path)), encoding="utf-8")
    kubernetes = load_config([tmp_path / "mapped.yaml"])

    assert (playground.daemon.listen, kubernetes.daemon.listen) == (":9462", ":9462")
    assert playground.jobs["stu"].max_age
    assert kubernetes.jobs["stu"].max_age


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_kubernetes(path):
    """Each object is as Kubernetes' schemas have it, with no key that they lack; pods are restricted."""
    for document in documents(path):
        kubernetes_validate.validate(document, "1.37", strict=True)
        spec = document.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" not in spec:
            continue
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        user = re.findall(r"(?m)^USER (\d+):(\d+)$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
        context = pod["securityContext"]
        assert [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user
        assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].endswith(f":{version('mysql-redis-loader')}")
        assert pod["terminationGracePeriodSeconds"] >= 35
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@wanted
def test_the_alerts():
    """promtool finds them valid, and each fires where its test says so and nowhere else; none is without a test."""
    assert promtool("check", "rules", str(ALERTS)) == ""
    assert promtool("test", "rules", "alerts_test.yaml", cwd=ALERTS.parent) == ""


def test_each_alert_is_tested_and_says_what_to_do():
    """It names metrics that there are, and has a severity, a summary and a description."""
    rules = [rule for group in documents(ALERTS)[0]["groups"] for rule in group["rules"]]
    tests = (ALERTS.parent / "alerts_test.yaml").read_text(encoding="utf-8")
    fired = set(re.findall(r'alertname="(\w+)", alertstate="firing"|alertname: (\w+)\n', tests))

    assert {name for names in fired for name in names if name} == {rule["alert"] for rule in rules}
    assert {name for rule in rules for name in metrics_of(rule["expr"])} <= there()
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


def metrics_of(expression):
    """The metrics that an expression reads, but for Prometheus' own."""
    return set(re.findall(r"\b(?:loader|process)_[a-z_]+[a-z]\b", expression))


def there():
    """The names of all series that a daemon may show."""
    families = re.findall(r"^# TYPE (\S+) (\S+)", Metrics().render().decode(), re.MULTILINE)
    parts = [f"{name}_{part}" for name, kind in families if kind == "histogram" for part in ("bucket", "sum", "count")]
    return {name for name, _ in families} | set(parts)


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]


def expressions():
    """What the dashboard asks Prometheus, by panel, as Grafana would for all jobs."""
    words = {"$job": ".*", "$__rate_interval": "1m", "$__interval": "1m", "$__range": "1h"}
    asked = []
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for word, value in words.items():
                expression = expression.replace(word, value)
            asked.append((panel["title"], expression))
    return asked


def test_the_dashboard():
    """Grafana's own model of a dashboard, of its panels and queries, knows each word of it; panels do not overlap."""
    register_default_plugins()
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert list(lost(dashboard, understood)) == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job"]
    for panel in panels():
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert panel["description"]


def lost(given, understood, path=""):
    """The places of what was given and is not in what was understood."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for name, value in given.items():
            yield from lost(value, understood.get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for number, pair in enumerate(zip(given, understood, strict=True)):
            yield from lost(*pair, f"{path}[{number}]")
    elif given != understood:
        yield path


def test_the_dashboard_asks_for_what_there_is():
    """Each metric exists, and each that a daemon has of its work is shown."""
    asked = {name for _, expression in expressions() for name in metrics_of(expression)}
    assert asked <= there()
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    families = set(re.findall(r"^# TYPE (loader_\S+)", Metrics().render().decode(), re.MULTILINE))
    assert families - shown == set()


@wanted
def test_prometheus_understands_the_dashboard(tmp_path):
    """Each query of it is one."""
    rules = [{"record": f"panel:{number}", "expr": each} for number, (_, each) in enumerate(expressions())]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert promtool("check", "rules", "rules.json", cwd=tmp_path) == ""
