"""The plots of a benchmark, as SVG that follows the reader's light or dark scheme."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10

from figures import Figures

PLOTTED = {
    "script": "shell script",
    "usual": "PyMySQL + redis-py, as usual",
    "redis-py": "PyMySQL + redis-py, tuned",
    "pipe": "mysql | redis-cli --pipe (one node)",
    "limit": "three redis-cli --pipe (no MySQL)",
    "one": "loader, one node",
    "cluster": "loader, cluster",
}
WIDTHS = {"stu": 3, "orders": 12, "wide_30": 30, "wide_100": 100}  # tables by their columns
WRITES = {  # variant: how its dots look, what it is called
    "cluster": ("orders", "HMSET, new hashes"),
    "over": ("orders pale", "HMSET over the same hashes"),
    "ready-made": ("stu", "RESTORE, new hashes"),
    "ready-made over": ("stu pale", "RESTORE over the same hashes"),
}

STYLE = """\
<style>
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .small { font-size: 11px; fill: #59636e }
  .back { fill: #ffffff }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .stu { fill: #0969da; stroke: #0969da }
  .orders { fill: #bc4c00; stroke: #bc4c00 }
  .pale { fill-opacity: 0.35 }
  text.stu, text.orders { stroke: none; font-size: 12px }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .back { fill: #0d1117 }
    .grid { stroke: #30363d }
    .stu { fill: #58a6ff; stroke: #58a6ff }
    .orders { fill: #f0883e; stroke: #f0883e }
  }
</style>"""
FOOT = "Medians; lines from least to greatest; logarithmic scales. The loader's CPU is without its start-up."
WIDTH, LINE, TOP, LEFT, PANEL, GAP = 960, 58, 84, 250, 285, 70


@dataclass(frozen=True, slots=True)
class Panel:
    """One half of a plot: its title, the figure it shows, its scale's first and last power of ten, and a unit."""

    title: str
    figure: str
    first: int
    last: int
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """One case in a plot: how far down, how it looks, and whether its CPU is shown `net`, without the start-up."""

    y: float
    look: str
    case: str
    net: bool


def variants(f: Figures) -> Iterator[str]:
    """The lines of results.svg: a dot for each variant and table on logarithmic scales, with least and greatest."""
    labels = list(PLOTTED.values())
    legend = [(20, "stu", "stu, 3 columns"), (160, "orders", "orders, 12 columns")]
    dots = [
        Dot(middle(number) + shift, name, f"{name}/{variant}", net=variant in {"one", "cluster"})
        for number, variant in enumerate(PLOTTED)
        for name, shift in (("stu", -9), ("orders", 9))
    ]
    panels = (
        Panel("rows a second, more is better", "rate", 2, 6),
        Panel("client CPU a row, less is better", "cpu", -1, 4, " µs"),
    )
    yield from plot(f, "Rows a second and client CPU a row, by variant", labels, legend, dots, panels)


def columns(f: Figures) -> Iterator[str]:
    """The lines of columns.svg: the CPU of Redis and of the loader by the number of columns, HMSET and RESTORE."""
    labels = [f"{count} columns" for count in WIDTHS.values()]
    legend = [(20 + 235 * number, look, text) for number, (look, text) in enumerate(WRITES.values())]
    dots = [
        Dot(middle(number) + 13 * (lane - 1.5), look, f"{name}/{variant}", net=True)
        for number, name in enumerate(WIDTHS)
        for lane, (variant, (look, _)) in enumerate(WRITES.items())
    ]
    panels = (
        Panel("CPU of all six Redis nodes a row", "redis", 0, 3, " µs"),
        Panel("CPU of the loader a row", "cpu", -1, 1, " µs"),
    )
    yield from plot(f, "CPU a row by the number of columns", labels, legend, dots, panels)


def middle(number: int) -> float:
    """How far down the middle of a line of the plot is."""
    return TOP + LINE * number + LINE / 2


def plot(
    f: Figures,
    title: str,
    labels: Sequence[str],
    legend: Sequence[tuple[float, str, str]],
    dots: Sequence[Dot],
    panels: Sequence[Panel],
) -> Iterator[str]:
    """Lines with labels, and dots on them in each panel."""
    height = TOP + LINE * len(labels) + 34
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    yield f"<title>{title}</title>"
    yield STYLE
    yield f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>'
    for x, look, text in legend:
        yield f'<circle class="{look}" cx="{x}" cy="26" r="5"/>'
        yield f'<text x="{x + 12}" y="30">{text}</text>'
    for number, label in enumerate(labels):
        yield f'<text x="{LEFT - 16}" y="{middle(number) + 4}" text-anchor="end">{label}</text>'
    for number, panel in enumerate(panels):
        yield from drawn(f, panel, LEFT + number * (PANEL + GAP), TOP + LINE * len(labels), dots)
    yield f'<text class="small" x="20" y="{height - 10}">{FOOT}</text>'
    yield "</svg>"


def drawn(f: Figures, panel: Panel, left: float, bottom: float, dots: Sequence[Dot]) -> Iterator[str]:
    """A panel: its scale, and the dots whose cases were measured."""

    def place(value: float) -> float:
        low, high = 10**panel.first, 10**panel.last
        return left + (log10(min(max(value, low), high)) - panel.first) / (panel.last - panel.first) * PANEL

    yield f'<text class="title" x="{left}" y="{TOP - 28}">{panel.title}</text>'
    for power in range(panel.first, panel.last + 1):
        x = place(10**power)
        text = f"{10**power:,}" if power >= 0 else "0.1"
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{TOP - 11}" text-anchor="middle">{text}{panel.unit}</text>'
    for dot in dots:
        net = "net " if dot.net and panel.figure == "cpu" else ""
        found = f.of(dot.case, net + panel.figure)
        if not found:
            continue
        x, low, high = map(place, found)
        text = f"{found[0]:,.{0 if found[0] >= 100 else 2}f}{panel.unit}"
        yield f'<line class="{dot.look}" x1="{low:.1f}" y1="{dot.y}" x2="{high:.1f}" y2="{dot.y}" stroke-width="2"/>'
        yield f'<circle class="{dot.look}" cx="{x:.1f}" cy="{dot.y}" r="5"/>'
        at, anchor = (high + 9, "start") if x < left + PANEL * 0.72 else (low - 9, "end")
        name = dot.look.partition(" ")[0]
        yield f'<text class="{name}" x="{at:.1f}" y="{dot.y + 4}" text-anchor="{anchor}">{text}</text>'
