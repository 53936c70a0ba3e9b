"""A deploy in a container: watched, ended when it hangs, and judged by what it made."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.backends import plan
from quickstart.backends.base import parse_report
from quickstart.backends.docker.starting import start
from quickstart.backends.docker.verdicts import after_its_end, ending
from quickstart.backends.engine.containers import GLANCE
from quickstart.backends.engine.words import PATIENCE, is_late
from quickstart.backends.judge import judge
from quickstart.backends.watching import Watch
from quickstart.errors import NotReadyError, from_exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quickstart.backends.base import DeployReport
    from quickstart.backends.container import ContainerSpec
    from quickstart.backends.docker.premises import Premises


@dataclass(frozen=True)
class Deploy:
    """Deploys archives in containers.

    Attributes:
        premises: What containers depend on.
        log: Where the whole log is kept.
        made_by: What the deploy's stamp says of the image.
    """

    premises: Premises
    log: Path
    made_by: dict[str, str]

    def run(
        self, rmirs: Sequence[str], draft: str, key: str, report: Callable[[str], None]
    ) -> DeployReport:
        """Deploy archives, and return what was made; paths are relative to the store.

        Raises:
            RivaQsError: It failed, hung, or did not make what the archives hold.
        """
        settings, host = self.premises.settings, self.premises.host
        spec = plan.deploy(settings, host, tuple(rmirs), draft, keyed=bool(key))
        with self._container(spec, key, report) as container:
            lines = self._watched(container, report)
            self._check(container, lines)
            return self._made(container, draft, rmirs, lines)

    @contextmanager
    def _container(
        self, spec: ContainerSpec, key: str, report: Callable[[str], None]
    ) -> Iterator[str]:
        """Run a container; it is gone afterwards, or taken away by the next deploy."""
        engine = self.premises.engine
        container = engine.create(spec, {"MODEL_DEPLOY_KEY": key})
        try:
            start(engine, container, report)
            yield container
        except NotReadyError as error:
            # An engine that has just stopped answering will not remove it either.
            patience = GLANCE if is_late(error) else PATIENCE
            with suppress(NotReadyError), engine.within(patience):
                engine.remove(container)
            raise
        except BaseException:
            engine.remove(container)
            raise
        engine.remove(container)

    def _watched(self, container: str, report: Callable[[str], None]) -> list[str]:
        """Report a container's lines as they come, and keep them in a file."""
        engine, silence = self.premises.engine, self.premises.settings.deploy_silence_sec
        watch = Watch("the deploy", report, silence, lambda: self._doing(container))
        lines = []
        with self.log.open("w", encoding="utf-8") as kept:
            for line in watch.follow(engine.logs(container, follow=True)):
                lines.append(line)
                kept.write(f"{line}\n")
        return lines

    def _doing(self, container: str) -> str:
        """Return what a container that says nothing does; the engine must answer that."""
        memory = self.premises.engine.memory(container)
        return f"; it holds {memory >> 20} MiB" if memory else ""

    def _check(self, container: str, lines: Sequence[str]) -> None:
        """Raise an error unless the container ended well."""
        engine = self.premises.engine
        if engine.wait(container):
            end = ending(after_its_end(engine, container), lines, "riva-deploy")
            hint = end.hint or f"its whole log: {self.log}"
            raise from_exit_code(end.code, f"the deploy failed: {end.cause}", hint)

    def _made(
        self, container: str, draft: str, rmirs: Sequence[str], lines: Sequence[str]
    ) -> DeployReport:
        """Return what was made, read from files that the container left."""
        engine = self.premises.engine
        if self.premises.settings.image != "riva":
            data = engine.read_file(container, f"/data/{draft}/report.json")
            return replace(parse_report(data), engine=self.made_by)
        listing = engine.read_file(container, plan.LISTING).decode(errors="replace")
        names = [Path(rmir).name for rmir in rmirs]
        return judge(listing, lines, names, self.made_by)
