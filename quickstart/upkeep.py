"""rollback, verify and gc: what keeps a model location in order between two deploys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickstart import deployment
from quickstart.errors import ArtifactMissingError, IntegrityError, UsageError
from quickstart.lifecycle import Result, outdated
from quickstart.store import place_of, staging
from quickstart.transfer import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quickstart.lifecycle import Suite
    from quickstart.store import Stamp, Store


def generations(suite: Suite) -> Result:
    """List the generations that are there, oldest first."""
    here, shown = suite.store, suite.store.shown()
    rows = [_row(here, name, shown) for name in here.generations()]
    lines = [_line(row) for row in rows] or [f"no model is deployed in {here} yet"]
    return Result(tuple(lines), suite.facts("rollback", generations=rows))


def _row(here: Store, name: str, shown: str) -> dict[str, Any]:
    """Return what is known of a generation, as JSON data."""
    row: dict[str, Any] = {"generation": name, "current": name == shown}
    row["size"] = here.size(f"generations/{name}")
    try:
        stamp = here.stamp(name)
    except ArtifactMissingError as error:
        return {**row, "damaged": error.message, "models": [], "archives": []}
    models = [model.name for model in stamp.models]
    return {**row, "models": models, "archives": [archive.name for archive in stamp.rmirs]}


def _line(row: dict[str, Any]) -> str:
    """Return a generation as one line."""
    what = row.get("damaged") or ", ".join(row["models"])
    return f"{'*' if row['current'] else ' '} {row['generation']}  {size_text(row['size'])}  {what}"


def rollback(suite: Suite, generation: str = "", *, dry_run: bool = False) -> Result:
    """Let `models` show the generation before, or a named one, in one step.

    Raises:
        ArtifactMissingError: There is no such generation.
    """
    here = suite.store
    target = _target(here, generation)
    stamp = here.stamp(target)
    models = ", ".join(model.name for model in stamp.models)
    step = f"let {here.models} show generation {target} ({models}) instead of {here.shown()}"
    if dry_run or target == here.shown():
        line = (
            f"would {step}" if target != here.shown() else f"{here.models} shows {target} already"
        )
        return Result((line,), suite.facts("rollback", dry_run=dry_run, generation=target))
    with here.locked("rollback"):
        # Under the lock once more: another riva-qs may have swept it meanwhile.
        stamp = here.stamp(_target(here, target))
        before = here.shown()
        here.switch_to(target)
    lines = (
        f"models: {models} (generation {target}, instead of {before})",
        *outdated(suite, stamp),
    )
    facts = suite.facts("rollback", generation=target, before=before, dry_run=False)
    return Result(lines, facts, "next: riva-qs start")


def _target(here: Store, generation: str) -> str:
    """Return the generation to go back to: a named one, or the one that was shown before."""
    known, shown = here.generations(), here.shown()
    if generation:
        found = [name for name in known if name.startswith(generation)]
        if len(found) == 1:
            return found[0]
        what = "no generation" if not found else "more than one generation"
        message = f'{here} has {what} "{generation}"; there are: {", ".join(known) or "none"}'
        raise (ArtifactMissingError if not found else UsageError)(
            message, "riva-qs rollback --list"
        )
    previous = _previous(here, shown)
    if previous in known:
        return previous
    older = [name for name in known if name < shown]
    if not older:
        message = f"{here} has no generation before {shown or 'the first one'}"
        raise ArtifactMissingError(message, "riva-qs rollback --list shows what there is")
    return older[-1]


def _previous(here: Store, shown: str) -> str:
    """Return the generation that was shown before the current one, as its stamp says."""
    try:
        return here.stamp(shown).previous if shown else ""
    except ArtifactMissingError:
        return ""


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was: an archive, or a generation with some of its files."""

    kind: str
    name: str
    problems: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what is wrong, one sentence each."""
        where = f"generation {self.name}: " if self.kind == "generation" else ""
        return [f"damaged: {where}{problem}" for problem in self.problems]


def verify(suite: Suite, *, repair: bool = False) -> Result:
    """Hash every file of rmir/ and of each generation against the stamps.

    Raises:
        IntegrityError: Something is damaged, and was not repaired.
    """
    here = suite.store
    found = list(_damages(here))
    lines = [line for damage in found for line in damage.lines()]
    counts = f"{len(here.archives())} archives and {len(here.generations())} generations"
    if not found:
        facts = suite.facts("verify", damaged=[], repaired=[])
        return Result((f"{counts} of {here} are as they were made",), facts)
    if not repair:
        data = suite.facts("verify", damaged=[vars(d) for d in found], repaired=[])
        return Result(tuple(lines), data, "next: riva-qs verify --repair", IntegrityError.code)
    for line in lines:
        suite.console.note(line)
    return _repaired(suite, found)


def _damages(here: Store) -> Iterator[Damage]:
    """Yield what is wrong in a location."""
    yield from (
        Damage("archive", name, (f"{place_of(name)} {problem}",))
        for name, problem in _damaged_archives(here).items()
    )
    known, shown = here.generations(), here.shown()
    for generation in known:
        problems = here.damage(generation)
        if problems:
            yield Damage("generation", generation, tuple(problems))
    if shown and shown not in known:
        yield Damage("generation", shown, ("all of it is gone",))


def _damaged_archives(here: Store) -> dict[str, str]:
    """Return what is wrong with archives: deployed ones, and those that riva-qs fetched."""
    fetched, stamp = set(here.fetched()), _stamp(here)
    there = {archive.name: archive for archive in here.archives()}
    others = {name: a for name, a in there.items() if place_of(name) not in fetched}
    deployed = {archive.name: archive for archive in stamp.rmirs} if stamp else {}
    gone = {name: "is gone" for name in deployed if name not in there}
    changed = {
        name: "is not what was deployed" for name, a in others.items() if deployed.get(name, a) != a
    }
    damaged = dict.fromkeys(here.fetched_names() & set(others), "is not what was fetched")
    return {**gone, **damaged, **changed}


def _stamp(here: Store) -> Stamp | None:
    """Return the current stamp; None also for a damaged one."""
    try:
        return here.current()
    except ArtifactMissingError:
        return None


def _repaired(suite: Suite, found: list[Damage]) -> Result:
    """Fetch and deploy again what is damaged; older generations that are damaged are removed."""
    here, shown = suite.store, suite.store.shown()
    bad = {damage.name for damage in found if damage.kind == "generation"}
    archives = [damage.name for damage in found if damage.kind == "archive"]
    ours = [place_of(name) for name in archives if name in here.fetched_names()]
    theirs = [place_of(name) for name in archives if name not in here.fetched_names()]
    if theirs:
        raise IntegrityError(
            f"{', '.join(theirs)} changed since it was deployed, and only you have it",
            "put the right file back, or deploy it as it is: riva-qs init",
        )
    older = [f"generations/{name}" for name in here.generations() if name in bad - {shown}]
    with here.locked("verify"):
        # What is damaged is no good to anybody; what is shown stays until the new one is.
        here.remove([*ours, *older])
    repaired = [f"{name}: removed" for name in older]
    result = deployment.init(suite, anew=shown in bad)
    running = suite.backend.state()
    in_use = {here.shown(), running.generation if running else ""}
    with here.locked("verify"):
        here.remove([f"generations/{name}" for name in bad - in_use])
    left = [line for damage in _damages(here) for line in damage.lines()]
    code = IntegrityError.code if left else 0
    lines = (*repaired, *result.lines, *left)
    data = {**result.data, "verb": "verify", "damaged": left, "repaired": list(lines)}
    return Result(lines, data, result.next_step, code)


def gc(suite: Suite, keep: int | None = None, *, dry_run: bool = False) -> Result:
    """Remove older generations, what killed runs left, and downloads that wait for nothing."""
    here, running = suite.store, suite.backend.state()
    count = suite.settings.keep_generations if keep is None else keep
    in_use = running.generation if running else ""

    def found() -> list[str]:
        """Return what may go by now."""
        return here.leftovers(keep=count, in_use=in_use)

    waiting = list(staging.abandoned())
    sizes = {str(here.root / name): here.size(name) for name in found()}
    sizes |= {str(path): _size(path) for path in waiting}
    steps = [f"remove {name} ({size_text(size)})" for name, size in sizes.items()]
    freed = sum(sizes.values())
    facts = suite.facts("gc", dry_run=dry_run, steps=steps, freed=freed)
    if dry_run or not steps:
        lines = tuple(f"would {step}" for step in steps) or (f"nothing to remove in {here}",)
        return Result(lines, facts)
    with here.locked("gc"):
        here.remove(found())
        for path in waiting:
            staging.drop(path)
    return Result(tuple(_removed(sizes, freed)), facts)


def _removed(sizes: dict[str, int], freed: int) -> list[str]:
    """Say what was removed."""
    lines = [f"removed {name} ({size_text(size)})" for name, size in sizes.items()]
    return [*lines, f"freed at most {size_text(freed)}: files that generations share stay"]


def _size(path: Path) -> int:
    """Return how many bytes are in a folder of this machine."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
