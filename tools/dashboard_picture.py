"""Draws the Grafana dashboard's panels, with example data: `docs/images/grafana-dashboard.svg`.

    python tools/dashboard_picture.py FOLDER

FOLDER has the programs `prometheus` and `promtool`. A real Prometheus evaluates each expression of the dashboard, so
this also shows that it takes them all, and that each finds data. Grafana itself draws the panels in its own style.

Only the standard library is used.
"""

from __future__ import annotations

import html
import json
import math
import random
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import ToolError, run_main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "docs/grafana/ray-jobs.json"
PICTURE = ROOT / "docs/images/grafana-dashboard.svg"

#: Seconds of example data, and between two samples; and the Unix time at which they end.
SPAN, STEP = 6 * 3600, 30
END = 1_800_000_000

#: The example: each DAG's jobs in an hour, mean seconds PENDING and RUNNING, and the failures in a hundred tries.
DAGS = {"features": (120, 4, 90, 2), "train": (20, 45, 900, 6), "score": (60, 8, 240, 1)}
CAUSES = {"job_entrypoint_command_error": 6, "out_of_memory": 3, "node_died": 1}

#: Pixels: width of the picture, height of a row of the grid, and around a plot.
WIDTH, ROW, LEFT, TOP, BOTTOM, GAP = 1200, 30, 52, 30, 42, 8
COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#b45309")
STYLE = (
    ".p{fill:#fff;stroke:#d1d5db}.h{font-size:14px;font-weight:600;fill:#111827}.a{font-size:11px;fill:#4b5563}"
    ".g{stroke:#e5e7eb}.v{font-size:40px;font-weight:600;fill:#2563eb}@media (prefers-color-scheme: dark)"
    "{.p{fill:#111827;stroke:#374151}.h{fill:#f9fafb}.a{fill:#d1d5db}.g{stroke:#374151}.v{fill:#60a5fa}}"
)

Series = list[tuple[str, list[tuple[float, float]]]]


def example() -> str:
    """Return the example data in OpenMetrics, as `statsd_exporter` exposes what Airflow sends."""
    chance = random.Random(7)  # noqa: S311 - no secret
    times = range(END - SPAN, END + 1, STEP)
    lines: dict[str, list[float]] = {}

    def counter(name: str, tags: str, increases: list[float]) -> None:
        lines[f"airflow_ray_jobs_{name}{{{tags}}}"] = list(accumulate(increases))

    def often(hourly: float) -> list[float]:
        each = hourly * STEP / 3600 / 3
        return [float(sum(chance.random() < each for _ in range(3))) for _ in times]

    requests = [0.0 for _ in times]
    for dag, (hourly, pending, run, failing) in DAGS.items():
        tags = f'conn_id="ray_default",dag_id="{dag}",task_id="job"'
        jobs = often(hourly)
        counter("submitted", tags, jobs)
        counter("adopted", tags, often(hourly / 100))
        counter("reattached", tags, often(hourly / 40))
        counter("orphans_stopped", tags, often(hourly / 200))
        counter("upload_bytes", tags, [number * 3e6 for number in jobs])
        for cause, share in CAUSES.items():
            counter("failed", f'{tags},cause="{cause}"', often(hourly * failing * share / 1000))
        for name, mean in (("pending_time", pending), ("run_time", run)):
            taken = [mean * (1 + 0.4 * math.sin(at / 4000) + 0.2 * chance.random()) for at in times]
            counter(f"{name}_count", tags, jobs)
            counter(f"{name}_sum", tags, [number * each for number, each in zip(jobs, taken, strict=True)])
            lines[f'airflow_ray_jobs_{name}{{{tags},quantile="0.99"}}'] = [each * 2.2 for each in taken]
        requests = [before + 0.4 * STEP + number * 9 for before, number in zip(requests, jobs, strict=True)]
    counter("head_requests", 'conn_id="ray_default"', requests)
    for host, most in (("triggerer-0", 30), ("triggerer-1", 24)):
        lines[f'airflow_ray_jobs_followed{{conn_id="ray_default",hostname="{host}"}}'] = [
            round(most * (1 + 0.4 * math.sin(at / 3000)) + chance.random() * 4) for at in times
        ]
    samples = (
        f"{name} {value} {at}" for name, values in lines.items() for at, value in zip(times, values, strict=True)
    )
    return "\n".join(samples) + "\n# EOF\n"


class Prometheus:
    """A Prometheus with the example data.

    :param programs: the folder with its programs.
    :param folder: an empty folder.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        data, samples = folder / "data", folder / "samples"
        samples.write_text(example())
        (folder / "prometheus.yml").write_text("{}\n")
        command = [str(programs / "promtool"), "tsdb", "create-blocks-from", "openmetrics", str(samples), str(data)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ToolError(f"promtool failed: {made.stderr}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={data}"]
        options += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y", "--log.level=error"]
        self.process = subprocess.Popen([str(programs / "prometheus"), *options])

    def wait(self) -> None:
        """Wait until it answers."""
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{self._url}/-/ready", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise ToolError("Prometheus does not answer.")

    def series(self, expression: str, legend: str) -> Series:
        """Evaluate an expression of the dashboard over the whole time; its variables select everything."""
        for name, value in {"$__rate_interval": "10m", "$__range": "6h", "$conn_id": ".*", "$dag_id": ".*"}.items():
            expression = expression.replace(name, value)
        query = {"query": expression, "start": END - SPAN + 600, "end": END, "step": 8 * STEP}
        url = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # of this machine
            found = json.load(answer)["data"]["result"]
        if not found:
            raise ToolError(f"no data for {expression}")
        return [(_named(legend, one["metric"]), [(at, float(v)) for at, v in one["values"]]) for one in found]


def _named(legend: str, tags: dict[str, str]) -> str:
    for name, value in tags.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


def draw(panel: dict[str, Any], series: Series) -> Iterator[str]:
    """Yield the SVG of one panel."""
    at, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
    column = WIDTH / 24
    x, y = at["x"] * column + GAP / 2, at["y"] * ROW + GAP / 2
    width, height = at["w"] * column - GAP, at["h"] * ROW - GAP
    yield f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4" class="p"/>'
    yield _text(x + 10, y + 20, panel["title"], "h")
    if panel["type"] == "stat":
        yield _text(x + width / 2, y + height / 2 + 24, f"{series[0][1][-1][1]:,.0f}", "v", "middle")
        return
    custom = panel["fieldConfig"]["defaults"]["custom"]
    if custom["stacking"]["mode"] == "normal":
        series = _stacked(series)
    most = max(value for _, points in series for _, value in points if not math.isnan(value)) * 1.1 or 1.0
    left, right, top, bottom = x + LEFT, x + width - 12, y + TOP, y + height - BOTTOM
    first, last = END - SPAN, END

    def place(when: float, value: float) -> tuple[float, float]:
        return left + (when - first) / (last - first) * (right - left), bottom - value / most * (bottom - top)

    for part in range(4):
        level = place(first, most * part / 3)[1]
        yield f'<line x1="{left:.0f}" y1="{level:.1f}" x2="{right:.0f}" y2="{level:.1f}" class="g"/>'
        yield _text(left - 6, level + 4, _readable(most * part / 3, unit), "a", "end")
    for part in range(4):
        when, anchor = (f"-{6 - 2 * part} h", "middle") if part < 3 else ("now", "end")
        yield _text(left + (right - left) * part / 3, bottom + 15, when, "a", anchor)
    for number, (_, points) in reversed(list(enumerate(series))):
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points if not math.isnan(point[1]))
        colour = COLOURS[number % len(COLOURS)]
        begin, end = place(points[0][0], 0)[0], place(points[-1][0], 0)[0]
        opacity = custom["fillOpacity"] / 100
        yield (
            f'<polygon points="{begin:.1f},{bottom:.1f} {line} {end:.1f},{bottom:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity}"/><polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
        )
    offset = x + 12
    for number, (name, _) in enumerate(series):
        yield f'<rect x="{offset:.0f}" y="{y + height - 17:.0f}" width="12" height="4" fill="{COLOURS[number % 5]}"/>'
        yield _text(offset + 17, y + height - 11, name, "a")
        offset += 34 + 6.2 * len(name)


def _stacked(series: Series) -> Series:
    """Add to each series those before it."""
    below: dict[float, float] = {}
    stacked: Series = []
    for name, points in series:
        below = {when: below.get(when, 0.0) + value for when, value in points}
        stacked.append((name, list(below.items())))
    return stacked


def _readable(value: float, unit: str) -> str:
    if unit == "Bps":
        return f"{value / 1e6:.2f} MB/s"
    ending = {"s": " s", "reqps": "/s"}.get(unit, "")
    return f"{value:,.0f}{ending}" if value >= 10 or value == 0 else f"{value:.1f}{ending}"


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{style}" text-anchor="{anchor}">{html.escape(text)}</text>'


def main(arguments: list[str]) -> int:
    """Draw the picture."""
    if len(arguments) != 1:
        raise ToolError("Give the folder with the programs prometheus and promtool.")
    dashboard = json.loads(DASHBOARD.read_text())
    with tempfile.TemporaryDirectory() as folder:
        prometheus = Prometheus(Path(arguments[0]), Path(folder))
        try:
            prometheus.wait()
            parts = [
                part
                for panel in dashboard["panels"]
                for part in draw(
                    panel,
                    [
                        one
                        for target in panel["targets"]
                        for one in prometheus.series(target["expr"], target["legendFormat"])
                    ],
                )
            ]
        finally:
            prometheus.process.terminate()
            prometheus.process.wait()
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">'
    )
    title = f"<title>The panels of the dashboard {dashboard['title']!r}, with example data</title>"
    PICTURE.write_text("\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n")
    return 0


if __name__ == "__main__":
    run_main(main)
