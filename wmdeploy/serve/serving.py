"""A bundle as a service: here, or wherever else this description is opened."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.applications import Starlette

from wmdeploy.bundle import Bundle
from wmdeploy.clips.source import ReadOptions
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.app import AppOptions, create_app
from wmdeploy.serve.engine import ServiceOptions
from wmdeploy.serve.keeper import Handover
from wmdeploy.serve.service import Service
from wmdeploy.serve.site import read_site
from wmdeploy.serve.world import find_world


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served, and how.

    Attributes:
        load: loads the bundle's engines.
        clips: to begin from; none: as the bundle says.
        site: a folder that `wmdeploy site` wrote of the bundle; None for none.
        shown: what the page tells, but for what the bundle knows itself.
    """

    bundle: Bundle
    load: Callable[[], Backend]
    clips: tuple[Path, ...] = ()
    read: ReadOptions = ReadOptions()
    site: Path | None = None
    options: ServiceOptions
    shown: AppOptions

    def open(
        self, handover: Handover | None = None, remarks: list[str] | None = None
    ) -> tuple[Service, Starlette]:
        """Load the engines, and make a service of them, and its application.

        Args:
            remarks: gets what a user should know.

        Raises:
            WmdeployError: the bundle cannot be served.
        """
        engines = self.load()
        remarks = [] if remarks is None else remarks
        world = find_world(
            engines, self.clips, self.read, None, bundle=self.bundle, remarks=remarks
        )
        chunk = min(self.options.chunk, engines.max_batch or self.options.chunk)
        options = replace(self.options, chunk=chunk)
        service = Service(engines, world.starts, options, reload=self.load, handover=handover)
        site = (
            None
            if self.site is None
            else read_site(self.site, self.bundle, engines.programs, world.starts)
        )
        shown = replace(self.shown, meanings=world.meanings, about=world.about, site=site)
        return service, create_app(service, shown)
