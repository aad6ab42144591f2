"""A bundle's programs in words, as rich tables."""

from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from wmdeploy.programs.contract import Call, ProgramName, Programs, TensorSpec

WHEN: dict[ProgramName, str] = {
    "encode": "of each real frame",
    "absorb": "makes a real frame part of the state",
    "predict": "of each imagined frame",
    "refresh": "after the window was cut, or where the state lacks frames of it",
    "render": "the picture of an imagined frame",
}
# sources that are what their one word says, of the newest frame or of the window
WITHOUT_A_NAME = {"action": "newest", "position": "newest", "length": "window"}


def row_table(programs: Programs) -> Table:
    """What a row, one rollout, is made of."""
    table = Table(title="a row: one rollout", title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value")
    context, least = programs.context, programs.least
    window = (context + 1) * sum(spec.bytes(1) for spec in programs.records)
    state = sum(spec.bytes(1) for spec in programs.state)
    noise = [f"{name}: {n.kind} {n.shape}" for name, n in programs.noise.items()]
    facts = {
        "context": _frames(context),
        "full window": _full_window(programs),
        "a reset takes": f"at least {_frames(least)}",
        "actions": _actions(programs),
        "state": f"{_size(state)}: {_names(programs.state)}" if state else "none",
        "window": f"{_size(window)}: {_names(programs.records)}" if window else "none",
        "noise of a frame": ", ".join(noise) or "none",
        "outputs": _names(programs.outputs) or "none",
        "taken back": ", ".join(programs.undo)
        and f"{', '.join(programs.undo)}, when a real frame replaces a prediction",
    }
    for what, value in facts.items():
        if value:
            table.add_row(what, Text(value))
    return table


def calls_table(programs: Programs) -> Table:
    """Which graphs run when, where their inputs come from, and where their outputs go."""
    used = {name: WHEN[name] for name, _ in programs.calls()}
    if programs.refresh_predicts:
        used["refresh"] += "; predicts, too"
    table = Table(
        title="programs",
        caption=Text("\n".join(f"{n}: {when}" for n, when in used.items()), "table.caption"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("program", "graph", "takes", "from", "gives", "to"):
        table.add_column(heading)
    before = ""
    named: list[tuple[str, ProgramName, Call]] = [(n, n, call) for n, call in programs.calls()]
    for decoder, calls in programs.renders.items():
        named += [(f"render, {decoder}", "render", call) for call in calls]
    for label, program, call in named:
        takes = [(name, _source(programs, program, call, name)) for name in call.feeds]
        gives = [(name, _target(programs, target, name)) for target, name in call.gives.items()]
        pairs = list(zip_longest(takes, gives, fillvalue=("", "")))
        times = f" x {call.times}" if call.times > 1 else ""
        for i, (taken, given) in enumerate(pairs):
            table.add_row(
                label if i == 0 and label != before else "",
                *(
                    Text(text)
                    for text in (f"{call.graph}{times}" if i == 0 else "", *taken, *given)
                ),
                end_section=i == len(pairs) - 1,
            )
        before = label
    return table


def _source(programs: Programs, program: ProgramName, call: Call, name: str) -> str:
    """Where an input comes from, in words."""
    source = call.feeds[name]
    kind, _, what = source.partition(".")
    records = {spec.name for spec in programs.records}
    absorbed = program == "absorb" and what in records
    if kind in WITHOUT_A_NAME:
        kind, what = WITHOUT_A_NAME[kind], kind
    words = {
        "frame": "the real frame",
        "state": "the state",
        "new": "the real frame" if absorbed else "an earlier call",
        "window": "the window",
        "newest": "the frame before" if program == "absorb" else "the newest frame",
        "noise": "noise",
        "index": f"run number, from {call.start}" if call.times > 1 else str(call.start),
        "zero": "zeros",
    }[kind]
    return words if what in ("", name) else f"{words}: {what}"


def _target(programs: Programs, target: str, name: str) -> str:
    """Where an output goes, in words."""
    kind, _, what = target.partition(".")
    if kind == "slot":
        state, _, counter = what.partition("@")
        return f"the state: entries of {state}, from {counter}"
    recorded = what in {spec.name for spec in programs.records}
    words = {
        "frame": "the picture",
        "state": "the state",
        "new": "the window" if recorded else "a later call",
        "out": "output",
    }[kind]
    return words if what in ("", name) else f"{words}: {what}"


def _full_window(programs: Programs) -> str:
    if programs.context == 1:
        return ""
    if programs.keep == programs.context:
        return "slides by one frame"
    if programs.keep == 1:
        return "starts again from the newest frame"
    return f"keeps the newest {programs.keep} frames"


def _actions(programs: Programs) -> str:
    if programs.action is None:
        return "none"
    if not programs.num_actions:
        return f"{programs.action} for each frame"
    many = "" if len(programs.action.shape) == 1 else f", {programs.action}"
    return f"0 to {programs.num_actions - 1}{many}, for each frame"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in specs)


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.2f} kB"
