"""A made-up report and its page, read back."""

from __future__ import annotations

from html.parser import HTMLParser

PATH = [
    {"kind": "clk-to-q", "ns": 0.5, "at": "a.Q", "cell": "TRELLIS_FF"},
    {"kind": "routing", "ns": 2.0, "at": "b.A", "cell": "LUT4"},
    {"kind": "logic", "ns": 1.0, "at": "b.Z", "cell": "LUT4"},
    {"kind": "setup", "ns": 0.1, "at": "c.D", "cell": "TRELLIS_FF"},
]


def row(simulator: str, **changes) -> dict:
    base = {
        "backend": "hls" if simulator == "gxx" else "rtl",
        "simulator": simulator,
        "images": 20,
        "values": 60,
        "mismatches": 0,
        "stalls": simulator == "icarus",
        "interval": 24,
        "estimated_interval": 24,
        "latency": 132,
        "estimated_latency": 132,
        "errors": [],
        "divergence": None,
        "idle": 0.3,
        "backpressure": 0.3,
        "seed": 1,
        "images_per_second": 12.5,
        "seconds": 1.0,
    }
    return base | changes


def synthesised(target: str, **changes) -> dict:
    base = {
        "design": "pipeline",
        "seed": 1,
        "target": target,
        "part": "a part",
        "units": "units",
        "lut": 1000,
        "ff": 800,
        "dsp": 9,
        "bram": 4,
        "fmax_mhz": 112.5,
        "freq_mhz": 100.0,
        "where": "3.6 ns through 1 cell",
        "helps": ["a register in between"],
        "critical_path": PATH,
        "utilization": {"TRELLIS_COMB": {"used": 1000, "available": 83640}},
        "notes": ["placed out of context"],
        "estimated": {"lut": 1100, "dsp": 9, "bram": 4},
    }
    return base | changes


class Page(HTMLParser):
    """Notes what would be loaded from elsewhere, what runs, and whether tags match."""

    VOID = {"meta", "br", "img", "link", "rect", "polyline", "circle", "path"}

    def __init__(self) -> None:
        super().__init__()
        self.open, self.bad, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.bad += [(name, value) for name, value in attributes if name in ("src", "href") or name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def well_formed(text: str) -> Page:
    """A page, read: all tags are closed, nothing is wrong, and it needs nothing from elsewhere."""
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.bad == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    return page
