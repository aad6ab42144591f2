"""`wmdeploy doctor`: show what this machine has, and what is missing."""

from wmdeploy.cli.common import app, example, out


@app.command(epilog=example("wmdeploy doctor"))
def doctor() -> None:
    """Show versions, devices and backends, and how to install what is missing."""
    from wmdeploy.cli.tables import doctor_table
    from wmdeploy.doctor import findings
    from wmdeploy.engines.trt.flavour import flavour_findings

    out.print(doctor_table([*findings(), *flavour_findings()]))
